"""A run's folder: where its files lie, how far it got, and which teacher outputs its losses read.

    runs/<name>-<12 hex digits>/{config.toml, run.json, metrics.parquet, checkpoints/, ...}

Which run a config asks for is decided in `student.runs.inputs`. Imports no torch.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pipeline.config.config import Config
from pipeline.storage.files import AnyPath, write_json
from pipeline.targets.reader import JoinCounts
from student.runs.layout import (
    LAST,
    RECORD,
    last_step,
    planned_steps,
    read_record,
    state_path,
    tensors_path,
)


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


def record_missing(config: Config, run: Run, counts: JoinCounts) -> str:
    """Note in `run.json` which training samples lack teacher targets, and what happened to them.

    Returns it as a sentence; empty if every sample has its targets.
    """
    if config.train.missing_targets == "error":
        return ""
    described = read_record(run.folder)
    noted = {
        "policy": config.train.missing_targets,
        "joined": counts.joined,
        "skipped": counts.skipped,
        "masked": counts.masked,
        "holes": counts.missing,
    }
    write_json(run.folder / RECORD, {**described, "missing_targets": noted})
    if not counts.missing:
        return ""
    outcome, number = ("left out", counts.skipped) if counts.skipped else ("masked", counts.masked)
    by_modality = ", ".join(f"{name} {count}" for name, count in sorted(counts.missing.items()))
    total = counts.joined + counts.skipped
    return f"{number} of {total} samples {outcome}: no targets for {by_modality}"


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
