"""What a run is, where it lies, whether it is finished. No torch: `status` and a skipped stage use
this.

A run's identity covers everything that its weights depend on: the student and training settings,
seed, modalities, dataset, manifest, the teacher's outputs that the losses read, code version.
Settings that only say how to execute stay out of it: device, threads, processes of the loader and of
the training, compilation (other sums in the last digits, as another device has), and what is kept or
shown beside the last weights (checkpoint interval, copies, validation, tracker). `open_run` writes
`runs/<name>-<12 hex digits>/{config.toml, run.json}`. Asking for the identity raises `DatasetError`
before the dataset is prepared and `MissingTarget` before the teacher's outputs are there.
"""

from __future__ import annotations

import json
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
from pipeline.storage.files import AnyPath, sha256_file, write_bytes, write_json
from pipeline.targets.descriptions import SCENE, resolve_descriptions
from pipeline.targets.lookup import resolve
from pipeline.targets.prompts import resolve_prompts
from pipeline.targets.reader import CachedTeacher, JoinCounts
from pipeline.targets.store import TargetStore
from pipeline.targets.views import ViewSettings, view_identity
from pipeline.workspace import Workspace, dataset_identity
from student.runs.layout import (
    CONFIG,
    LAST,
    RECORD,
    last_step,
    planned_steps,
    read_record,
    state_path,
    tensors_path,
)

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
class Run:
    """One training run: its folder and what its weights depend on."""

    id: str
    folder: AnyPath
    identity: dict[str, Any]

    @property
    def checkpoint(self) -> AnyPath:
        """Weights, optimiser and state of the last checkpoint."""
        return self.tensors_of(LAST)

    @property
    def checkpoint_state(self) -> AnyPath:
        """The state of the last checkpoint and its file's sha256, readable without tensors."""
        return self.state_of(LAST)

    def tensors_of(self, name: str) -> AnyPath:
        """File of a checkpoint: `last`, `best` or `step-N`."""
        return tensors_path(self.folder, name)

    def state_of(self, name: str) -> AnyPath:
        """Its state."""
        return state_path(self.folder, name)

    @property
    def metrics(self) -> AnyPath:
        """One row a step: losses, learning rate, times."""
        return self.folder / "metrics.parquet"

    @property
    def evaluation(self) -> AnyPath:
        """Scores of every subset of the modalities."""
        return self.folder / "evaluation.json"

    @property
    def pictures(self) -> AnyPath:
        """`<key>/{label, <modality>+<modality>...}.png`: predictions as class ids."""
        return self.folder / "pictures"


def identify(config: Config, workspace: Workspace, manifest: Manifest | None = None) -> Run:
    """The run that this config asks for, whether it exists or not."""
    manifest = manifest or Manifest.load(workspace.dataset(config))
    identity: dict[str, Any] = {
        "schema": RUN_SCHEMA,
        "code": VERSION,
        "seed": config.seed,
        "student": _student_identity(config),
        "train": config.train.model_dump(mode="json", exclude=_EXECUTION),
        "modalities": [[name, asdict(spec)] for name, spec in config.specs().items()],
        "dataset": fingerprint(dataset_identity(config)),
        "manifest": manifest.digest(),
        "towers": _tower_fingerprints(config, workspace),
        "prompts": _prompt_fingerprint(config, workspace),
        **_views_and_holes(config, workspace, manifest),
        **_scene_identity(config, workspace),
    }
    identity = json.loads(canonical_json(identity))  # lists for tuples: equal to what files hold
    run_id = f"{config.name}-{fingerprint(identity)[:SHORT]}"
    return Run(run_id, workspace.runs / run_id, identity)


def _student_identity(config: Config) -> dict[str, Any]:
    """The student's settings; a file of backbone weights by its content, wherever it lies."""
    student = config.student.model_dump(mode="json")
    weights = Path(config.student.weights)
    if config.student.weights not in NAMED_WEIGHTS and weights.is_file():
        student["weights"] = f"sha256:{sha256_file(weights)}"
    return student


def open_run(config: Config, workspace: Workspace, manifest: Manifest | None = None) -> Run:
    """`identify`, and write the run's folder with its resolved config and identity."""
    run = identify(config, workspace, manifest)
    write_bytes(run.folder / CONFIG, dump_config(config).encode())
    samples = (manifest or Manifest.load(workspace.dataset(config))).num_samples
    record = {"run_id": run.id, "identity": run.identity, "num_samples": samples}
    write_json(run.folder / RECORD, record)
    return run


def record_missing(config: Config, run: Run, counts: JoinCounts) -> str:
    """Note in `run.json` which training samples lack teacher outputs, and what became of them.

    Returns it in words; empty if every sample has its outputs.
    """
    if config.train.missing_targets == "error":
        return ""
    described = read_record(run.folder)
    noted = {"policy": config.train.missing_targets, **asdict(counts)}
    write_json(run.folder / RECORD, {**described, "missing_targets": noted})
    if not counts.holes:
        return ""
    fate, number = ("left out", counts.skipped) if counts.skipped else ("masked", counts.masked)
    lacking = ", ".join(f"{name} {holes}" for name, holes in sorted(counts.holes.items()))
    return f"{number} of {counts.joined + counts.skipped} samples {fate}: no targets for {lacking}"


def steps_done(run: Run) -> int:
    """Steps of the last checkpoint; 0 if there is none."""
    return last_step(run.folder)


def is_finished(run: Run) -> bool:
    """Whether the run's checkpoint is that of its last step."""
    return run.checkpoint.exists() and steps_done(run) == planned_steps(run.identity)


def reads_targets(config: Config) -> tuple[str, ...]:
    """The teacher outputs that the losses with weight read: of `embedding` and `patch`."""
    lscd = config.student.lscd
    outputs = []
    if lscd.inter:
        outputs.append("embedding")
    if lscd.dense:
        outputs.append("patch")
    return tuple(outputs)


def reads_prompts(config: Config) -> bool:
    """Whether a loss with weight reads the teacher's class prompts."""
    lscd = config.student.lscd
    if lscd.prompts == "one_hot":
        return False
    return bool(lscd.intra or (lscd.dense and lscd.dense_distance == "kl"))


def _tower_fingerprints(config: Config, workspace: Workspace) -> dict[str, str]:
    if not reads_targets(config):
        return {}
    stores = {name: resolve(config, workspace, name) for name in config.modalities}
    return {name: store.provenance.tower_fingerprint for name, store in stores.items()}


def _prompt_fingerprint(config: Config, workspace: Workspace) -> str:
    return resolve_prompts(config, workspace).fingerprint if reads_prompts(config) else ""


def scene_store(config: Config, workspace: Workspace) -> TargetStore | None:
    """The store that `student.lscd.scene_column` reads; None if it is off. Raises `MissingTarget`."""
    if not (config.student.lscd.inter and config.student.lscd.scene_column):
        return None
    assert config.descriptions is not None
    return resolve_descriptions(config, workspace, config.descriptions, SCENE)


def _scene_identity(config: Config, workspace: Workspace) -> dict[str, str]:
    store = scene_store(config, workspace)
    return {} if store is None else {"scene": store.provenance.tower_fingerprint}


def _views_and_holes(config: Config, workspace: Workspace, manifest: Manifest) -> dict[str, Any]:
    """Which crops are shown, and what the samples to train on were chosen from: only where asked
    for."""
    found = view_identity(ViewSettings.of(config))
    if config.train.missing_targets != "error" and reads_targets(config):
        source = CachedTeacher.open(config, workspace)
        found["targets_there"] = source.content(manifest.shards(TRAIN_SPLIT))
    return found
