"""The live teacher: encodes a shard's images on request, instead of reading cached targets.

    source = LiveTeacher.open(config, workspace)
    train(config, workspace, live=source)          # handed in by `flows`; students import no teacher

It satisfies `pipeline.targets.reader.TeacherSource`. Towers, preprocessing, batches and stored dtype
are those of `precompute`, so on the same machine its targets equal the cached ones bit for bit.
Nothing is kept: a shard is encoded again in every epoch. One process only.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import closing
from typing import Any

from numpy.typing import NDArray

from pipeline.config.config import Config
from pipeline.config.teacher import DENSE_TEACHER, TEACHER
from pipeline.shards.manifest import ShardInfo
from pipeline.targets.provenance import PATCH, TargetProvenance
from pipeline.targets.reader import Targets
from pipeline.workspace import Workspace
from teacher.encoding.batches import decoded_batches
from teacher.encoding.encoder import Encoder
from teacher.encoding.precompute import empty_rows, encode_batch, precompute_prompts, scatter
from teacher.encoding.units import TowerPlan, Unit, plan_towers
from teacher.encoding.views import stored_images_per_batch


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

    def width(self, output: str) -> int:
        """Width of one vector of an output."""
        return self._provenance_of(output).outputs[output][-1]

    def field(self, output: str) -> float:
        """Side of the square that the tower sees, as a share of the centred square's."""
        return self._provenance_of(output).field

    def _provenance_of(self, output: str) -> TargetProvenance:
        plan = next(plan for plan in self.plans if plan.teacher == self._teacher_of(output))
        return next(iter(plan.stores.values())).provenance

    def _teacher_of(self, output: str) -> str:
        second = output == PATCH and self.config.dense_teacher is not None
        return DENSE_TEACHER if second else TEACHER

    def targets(self, shard: ShardInfo) -> Targets:
        """Modality to output to rows in the order of `shard.keys`; NaN where a sample lacks the modality.

        Raises `CorruptShard` or `OutOfMemory`.
        """
        rows: dict[str, dict[str, dict[str, NDArray[Any]]]] = {
            plan.teacher: {} for plan in self.plans
        }
        for plan in self.plans:
            rows[plan.teacher] |= {n: empty_rows(s, shard) for n, s in plan.stores.items()}
        units = [
            Unit(shard.split, shard.index, plan.tower, tuple(plan.stores), 0, plan.teacher)
            for plan in self.plans
        ]
        size = stored_images_per_batch(self.config)
        with closing(decoded_batches(self.plans, [shard], units, size)) as batches:
            for batch in batches:
                if batch.images:
                    encoded = encode_batch(self.config, self.encoder, batch)
                    scatter(batch, encoded, rows[batch.plan.teacher])
        return {
            name: {output: rows[self._teacher_of(output)][name][output] for output in outputs}
            for name, outputs in (rows[TEACHER] | rows.get(DENSE_TEACHER, {})).items()
        }

    def missing_targets(self, shard: ShardInfo) -> Mapping[str, frozenset[str]]:
        """No sample is without its targets."""
        return {name: frozenset() for plan in self.plans for name in plan.stores}
