"""What a run would do, stage by stage, and whether it fits: the numbers behind `any2seg plan`.

    plan = plan_run(config, workspace, probe=True)

Counts come from the lists that the stages themselves work through. With `probe`, the towers are loaded
and reading, decoding, encoding and writing are timed for a few seconds; of the workspace this changes
`cache/` alone. Raises what `prepare` and `precompute` would raise before they start.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from flows.planning.estimate import (
    Prediction,
    Probe,
    TowerWork,
    count_work,
    estimate_time,
    future_units,
    images_by_shard,
)
from pipeline.config.config import Config
from pipeline.config.load import rows
from pipeline.errors import DatasetError, MissingTarget
from pipeline.shards.manifest import Manifest
from pipeline.shards.prepare_plan import PreparePlan, load_if_prepared, measured_bytes, plan_prepare
from pipeline.storage.disk_space import free_bytes, required_bytes
from pipeline.targets.prompts import resolve_prompts
from pipeline.workspace import Workspace
from student.runs.inputs import identify
from student.runs.run import steps_done
from teacher.encoding.class_prompts import templates
from teacher.encoding.units import TowerPlan, Unit, plan_towers, plan_units


@dataclass(frozen=True, slots=True)
class StudentPlan:
    """The missing work of one training row."""

    row: str
    steps: int
    samples: int
    """Samples drawn in these steps."""
    scored_subsets: int
    """Subsets of the modalities to score; 0: the scores exist."""
    scored_samples: int
    """Samples of the scored split, each predicted once per subset."""


@dataclass(frozen=True, slots=True)
class RunPlan:
    """Everything that a run would do."""

    prepare: PreparePlan
    num_units: int
    """Pairs of a shard and a tower."""
    towers: tuple[TowerWork, ...]
    prompts: int
    """Class prompts to embed."""
    students: tuple[StudentPlan, ...]
    num_bytes: int
    """Size of shards and target objects together."""
    free: int | None
    """Free bytes on the workspace's disk; None: an object store."""
    probe: Probe | None
    prediction: Prediction | None
    """Time of `precompute`; None if nothing was probed or nothing is missing."""

    @property
    def fits(self) -> bool:
        """Whether the disk has room for it, with a margin."""
        return self.free is None or required_bytes(self.num_bytes) <= self.free

    def as_json(self) -> dict[str, Any]:
        """A JSON-ready dict: counts, bytes, seconds."""
        prepare = {
            "samples": dict(self.prepare.samples),
            "shards": len(self.prepare.shards),
            "num_bytes": self.prepare.num_bytes,
            "seconds_on_one_core": self.prepare.seconds,
        }
        prediction = self.prediction
        times = asdict(prediction) | {"bottleneck": prediction.bottleneck} if prediction else None
        return {
            "prepare": prepare,
            "precompute": {
                "units": self.num_units,
                "towers": [asdict(work) for work in self.towers],
                "prompts": self.prompts,
                "probe": asdict(self.probe) if self.probe else None,
                "prediction": times,
            },
            "students": [asdict(student) for student in self.students],
            "num_bytes": self.num_bytes,
            "required_bytes": required_bytes(self.num_bytes),
            "free_bytes": self.free,
            "fits": self.fits,
        }


def plan_run(config: Config, workspace: Workspace, *, probe: bool = True) -> RunPlan:
    """Count what every stage would do; with `probe`, also how long the teacher pass takes."""
    prepared = plan_prepare(config, workspace, probe=probe)
    manifest = load_if_prepared(workspace.dataset(config))
    shards = manifest.all_shards if manifest else ()
    plans = plan_towers(config, workspace)
    units = [*plan_units(plans, shards), *future_units(plans, prepared.shards)]
    work = count_work(config, plans, units, images_by_shard(shards, prepared.shards))
    measured = _probe(config, workspace, plans, units, manifest, prepared) if probe else None
    size = measured_bytes(shards) * config.store.shard_size
    split_sizes = Counter(prepared.samples)
    for shard in shards:
        split_sizes[shard.split] += shard.num_rows
    return RunPlan(
        prepare=prepared,
        num_units=len(units),
        towers=tuple(work),
        prompts=_num_prompts(config, workspace),
        students=tuple(
            _student(name, row, workspace, split_sizes) for name, row in rows(config).items()
        ),
        num_bytes=prepared.num_bytes + sum(item.num_bytes for item in work),
        free=free_bytes(workspace.root),
        probe=measured,
        prediction=estimate_time(units, measured, size) if measured else None,
    )


def _probe(
    config: Config,
    workspace: Workspace,
    plans: Sequence[TowerPlan],
    units: Sequence[Unit],
    manifest: Manifest | None,
    prepared: PreparePlan,
) -> Probe | None:
    """Measure with images of a shard, or with samples that were encoded to plan `prepare`."""
    from flows.planning.probe import ProbeSource, measure
    from teacher.encoding.encoder import Encoder

    if not units:
        return None
    modalities = tuple(config.modalities)
    if manifest is not None:
        first = (units[0].split, units[0].index)
        shards = {(shard.split, shard.index): shard for shard in manifest.all_shards}
        shard = shards.get(first, manifest.all_shards[0])
        source = ProbeSource.of_shard(shard, modalities)
    elif prepared.probe is not None:
        source = ProbeSource.of_samples(prepared.probe, modalities)
    else:
        return None
    return measure(config, workspace, plans, source, Encoder(config.teacher.device))


def _num_prompts(config: Config, workspace: Workspace) -> int:
    try:
        resolve_prompts(config, workspace)
    except MissingTarget:
        from pipeline.datasets import open_dataset

        classes = open_dataset(config.dataset, config.specs()).classes
        return len(classes) * len(templates(config.teacher.templates))
    return 0


def _student(
    name: str, config: Config, workspace: Workspace, split_sizes: Mapping[str, int]
) -> StudentPlan:
    from student.evaluation.evaluate import current_scores

    steps, scored = config.train.steps, False
    try:
        run = identify(config, workspace)
    except (DatasetError, MissingTarget):
        pass  # Earlier stages are missing, so all of it is to do.
    else:
        steps -= steps_done(run)
        scored = steps == 0 and current_scores(run, config) is not None
    return StudentPlan(
        row=name,
        steps=steps,
        samples=steps * config.train.batch_size,
        scored_subsets=0 if scored else 2 ** len(config.modalities) - 1,
        scored_samples=split_sizes.get(config.evaluate.split, 0),
    )
