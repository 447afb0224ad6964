"""The live teacher: encodes a shard's pictures when a student asks, instead of reading a cache.

    source = LiveTeacher.open(config, workspace)
    train(config, workspace, live=source)          # handed in by `flows`; students import no teacher

It satisfies `pipeline.targets.reader.TeacherSource`. Towers, preprocessing, batches and stored type
are those of `precompute`, so on the same machine its answers are the cache's, bit for bit; across
devices they agree as embeddings do. It keeps nothing: a shard that comes round again is encoded
again, which is what a cache saves.

Writes the (empty) target stores and their index entries, which name the towers in a run's identity,
and the class prompts if they are missing. Fails with `ConfigError`, `CheckpointError`,
`CorruptShard` or `OutOfMemory`. To be used in one process, where its towers are.

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
    """Answers made on demand by the towers of a config."""

    def __init__(self, config: Config, plans: Sequence[TowerPlan], encoder: Encoder) -> None:
        self.config = config
        self.plans = plans
        self.encoder = encoder

    @classmethod
    def open(
        cls, config: Config, workspace: Workspace, *, device: str | None = None
    ) -> LiveTeacher:
        """The live teacher of a config, with everything written that a run's identity asks for."""
        plans = plan_towers(config, workspace)
        for plan in plans:
            plan.create_stores(config, workspace)
        precompute_prompts(config, workspace, device=device)
        return cls(config, plans, Encoder(device or config.teacher.device))

    @property
    def dim(self) -> int:
        """D, the width of an embedding."""
        return next(iter(self.plans[0].stores.values())).provenance.dim

    def targets(self, shard: ShardInfo) -> Targets:
        """Modality to output to rows in the order of `shard.keys`; NaN where it lacks the modality."""
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
