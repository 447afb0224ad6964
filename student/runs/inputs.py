"""Everything that a run reads, opened once: manifest, target stores, class prompts, descriptions.

    inputs = open_inputs(config, workspace)

A stage opens its inputs first and hands them to training, validation, evaluation and the report, so
that all of them see the same stores. The run's identity needs the stores as well: it covers
everything that the weights depend on (student and training config, seed, modalities, dataset,
manifest, the teacher outputs that the losses read, code version). Fields that only say how to
execute stay out of it: device, threads, processes of the loader and of the training, compilation
(which changes last digits, as another device does), and what is kept or shown beside the last
weights (checkpoint interval, copies, validation, tracker).

Imports no torch: `any2seg status` and a skipped stage use this. Raises `DatasetError` before the
dataset is prepared and `MissingTarget` before the teacher's outputs exist.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pipeline import VERSION
from pipeline.config.config import Config
from pipeline.config.load import dump_config
from pipeline.core.fingerprint import SHORT, canonical_json, fingerprint
from pipeline.core.splits import TRAIN_SPLIT
from pipeline.schemas import RUN_SCHEMA
from pipeline.shards.manifest import Manifest
from pipeline.storage.files import sha256_file, write_bytes, write_json
from pipeline.targets.descriptions import SCENE, resolve_descriptions
from pipeline.targets.lookup import resolve
from pipeline.targets.prompts import PromptStore, resolve_prompts
from pipeline.targets.reader import CachedTeacher
from pipeline.targets.store import TargetStore
from pipeline.targets.views import VIEW_BOX, ViewConfig, view_identity
from pipeline.workspace import Workspace, dataset_identity
from student.runs.layout import CONFIG, RECORD
from student.runs.run import Run, reads_prompts, reads_targets

NAMED_WEIGHTS = ("hub", "package", "none")
"""Values of `student.weights` that are not a file."""
_EXECUTION = {
    "checkpoint_every",
    "keep_every",
    "validate_every",
    "tracker",
    "compile",
    "processes",
    "workers",
    "threads",
    "device",
}


@dataclass(frozen=True, slots=True)
class RunInputs:
    """What one config's run reads, and which run that is."""

    config: Config
    workspace: Workspace
    manifest: Manifest
    teacher: CachedTeacher | None
    """Cached targets; None if no loss with weight reads any."""
    prompts: PromptStore | None
    """Embedded class prompts; None if no loss with weight reads them."""
    descriptions: TargetStore | None
    """Embedded scene descriptions; None unless `student.lscd.scene_column` is on."""
    run: Run


def open_inputs(
    config: Config, workspace: Workspace, manifest: Manifest | None = None
) -> RunInputs:
    """The inputs of a config's run, whether the run exists or not.

    `manifest`: the dataset's, if the caller has loaded it already.
    """
    manifest = manifest or Manifest.load(workspace.dataset(config))
    teacher = _open_teacher(config, workspace)
    prompts = resolve_prompts(config, workspace) if reads_prompts(config) else None
    descriptions = _open_descriptions(config, workspace)
    identity = {
        "schema": RUN_SCHEMA,
        "code": VERSION,
        "seed": config.seed,
        "student": _student_identity(config),
        "train": config.train.model_dump(mode="json", exclude=_EXECUTION),
        "modalities": [[name, asdict(spec)] for name, spec in config.specs().items()],
        "dataset": fingerprint(dataset_identity(config)),
        "manifest": manifest.digest(),
        "towers": {
            name: store.provenance.tower_fingerprint
            for name, store in (teacher.stores if teacher else {}).items()
        },
        "prompts": prompts.fingerprint if prompts else "",
        **view_identity(ViewConfig.of(config)),
        **_content_identity(config, manifest, teacher),
        **({"scene": descriptions.provenance.tower_fingerprint} if descriptions else {}),
    }
    run = _run_of(config, workspace, identity)
    return RunInputs(config, workspace, manifest, teacher, prompts, descriptions, run)


def identify(config: Config, workspace: Workspace, manifest: Manifest | None = None) -> Run:
    """The run that a config asks for, where nothing else of its inputs is needed."""
    return open_inputs(config, workspace, manifest).run


def start_run(inputs: RunInputs) -> None:
    """Write the run's folder: `config.toml`, as resolved, and `run.json` with its identity."""
    run = inputs.run
    write_bytes(run.folder / CONFIG, dump_config(inputs.config).encode())
    samples = inputs.manifest.num_samples
    record = {"run_id": run.id, "identity": run.identity, "num_samples": samples}
    write_json(run.folder / RECORD, record)


def _open_teacher(config: Config, workspace: Workspace) -> CachedTeacher | None:
    outputs = reads_targets(config)
    if not outputs:
        return None
    stored = (*outputs, VIEW_BOX) if config.teacher.views else outputs
    return CachedTeacher(
        {name: resolve(config, workspace, name) for name in config.modalities}, stored
    )


def _open_descriptions(config: Config, workspace: Workspace) -> TargetStore | None:
    if not (config.student.lscd.inter and config.student.lscd.scene_column):
        return None
    assert config.descriptions is not None
    return resolve_descriptions(config, workspace, config.descriptions, SCENE)


def _run_of(config: Config, workspace: Workspace, identity: Mapping[str, Any]) -> Run:
    # Through JSON, so that tuples become lists and it equals what `run.json` holds.
    plain = json.loads(canonical_json(identity))
    run_id = f"{config.name}-{fingerprint(plain)[:SHORT]}"
    return Run(run_id, workspace.runs / run_id, plain)


def _student_identity(config: Config) -> dict[str, Any]:
    """The student's config; a file of backbone weights by its content, wherever it lies."""
    student = config.student.model_dump(mode="json")
    weights = Path(config.student.weights)
    if config.student.weights not in NAMED_WEIGHTS and weights.is_file():
        student["weights"] = f"sha256:{sha256_file(weights)}"
    return student


def _content_identity(
    config: Config, manifest: Manifest, teacher: CachedTeacher | None
) -> dict[str, str]:
    """Which targets exist: where samples without them are skipped or masked, the weights depend
    on it."""
    if config.train.missing_targets == "error" or teacher is None:
        return {}
    return {"targets_there": teacher.content(manifest.shards(TRAIN_SPLIT))}
