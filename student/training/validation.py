"""Scores while training goes on: every subset of the modalities over the evaluation split.

The split is shared out among the processes that train, so that none waits long for another. Draws
nothing and leaves the running statistics alone, so a run with validation ends with the weights of one
without. Writes nothing; what can fail: `DatasetError` (no such split), `CorruptShard`.
"""

from __future__ import annotations

import json

from pipeline.config.config import Config
from pipeline.shards.manifest import Manifest
from pipeline.shards.sample_reader import list_samples
from pipeline.storage.files import read_json
from student.evaluation.count import count_subsets
from student.evaluation.score_tables import summarise
from student.model.student import Student
from student.runs.distributed import World
from student.runs.layout import BEST
from student.runs.run import Run
from student.training.metrics_log import Row


class Validation:
    """The split, and the best mean over the subsets so far."""

    def __init__(self, config: Config, manifest: Manifest, run: Run, world: World) -> None:
        self.config, self.run, self.world = config, run, world
        self.refs = list_samples(manifest, config.evaluate.split, tuple(config.modalities))
        self.best = _best(run)

    def due(self, step: int) -> bool:
        """Whether to score after `step` steps."""
        return step % self.config.train.validate_every == 0 or step == self.config.train.steps

    def score(self, model: Student) -> Row:
        """mIoU of all modalities, mean and worst of the subsets; `model` comes back as it was."""
        was_training = model.training
        counts = count_subsets(self.config, self.run, model.eval(), self.refs, world=self.world)
        model.train(was_training)
        found = summarise(counts)
        return {
            "val_all": found["all"],
            "val_mean": found["mean"],
            "val_worst": found["worst"]["miou"],
        }

    def improves(self, figures: Row) -> bool:
        """Whether this mean is the best so far; it is then what later ones are compared with."""
        better = figures["val_mean"] > self.best
        self.best = max(self.best, figures["val_mean"])
        return better


def _best(run: Run) -> float:
    try:
        return float(read_json(run.state_of(BEST))["val_mean"])
    except (FileNotFoundError, json.JSONDecodeError):
        return -1.0
