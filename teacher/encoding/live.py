"""The live teacher: encodes a shard's images on request, instead of reading cached targets.

    source = LiveTeacher.open(config, workspace)
    train(config, workspace, live=source)          # handed in by `flows`; students import no teacher

It satisfies `pipeline.targets.reader.TeacherSource`. Towers, preprocessing, batches and stored dtype
are those of `precompute`, so on the same machine its targets equal the cached ones bit for bit.
Nothing is kept: a shard is encoded again in every epoch. One process only.

Legend: D teacher width.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import closing
from typing import Any

from numpy.typing import NDArray

from pipeline.config.config import Config
from pipeline.shards.manifest import ShardInfo
from pipeline.targets.reader import Targets
from pipeline.workspace import Workspace
from teacher.encoding.batches import decoded_batches
from teacher.encoding.encoder import Encoder
from teacher.encoding.precompute import empty_rows, encode_batch, precompute_prompts, scatter
from teacher.encoding.units import TowerPlan, Unit, plan_towers
from teacher.encoding.views import stored_pictures_a_batch


class LiveTeacher:
    """Targets computed on demand by the towers of a config."""

    def __init__(self, config: Config, plans: Sequence[TowerPlan], encoder: Encoder) -> None:
        self.config = config
        self.plans = plans
        self.encoder = encoder

    @classmethod
    def open(
        cls, config: Config, workspace: Workspace, *, device: str | None = None
    ) -> LiveTeacher:
        """The live teacher of a config. Raises `ConfigError` or `CheckpointError`.

        Writes the class prompts if they are missing, and empty target stores with their index
        entries: a run's identity names its teacher by these.
        """
        plans = plan_towers(config, workspace)
        for plan in plans:
            plan.create_stores(config, workspace)
        precompute_prompts(config, workspace, device=device)
        return cls(config, plans, Encoder(device or config.teacher.device))

    @property
    def dim(self) -> int:
        """Width D of an embedding."""
        return next(iter(self.plans[0].stores.values())).provenance.dim

    def targets(self, shard: ShardInfo) -> Targets:
        """Modality to output to rows in the order of `shard.keys`; NaN where a sample lacks the modality.

        Raises `CorruptShard` or `OutOfMemory`.
        """
        rows: dict[str, dict[str, NDArray[Any]]] = {
            name: empty_rows(store, shard)
            for plan in self.plans
            for name, store in plan.stores.items()
        }
        units = [
            Unit(shard.split, shard.index, plan.tower, tuple(plan.stores), num_pictures=0)
            for plan in self.plans
        ]
        size = stored_pictures_a_batch(self.config)
        with closing(decoded_batches(self.plans, [shard], units, size)) as batches:
            for batch in batches:
                if batch.pictures:
                    scatter(batch, encode_batch(self.config, self.encoder, batch), rows)
        return rows

    def missing_targets(self, shard: ShardInfo) -> Mapping[str, frozenset[str]]:
        """No sample is without its targets."""
        return {name: frozenset() for plan in self.plans for name in plan.stores}
