"""Scores during training: every subset of the modalities over the evaluation split.

The training processes share the split among them. Draws no random number and leaves the running
statistics alone, so a run with validation ends with the weights of one without. Raises
`DatasetError` (no such split) and `CorruptShard`.
"""

from __future__ import annotations

import json

from pipeline.shards.sample_reader import list_samples
from pipeline.storage.files import read_json
from student.evaluation.count import count_subsets
from student.evaluation.score_tables import summarise
from student.model.student import Student
from student.runs.distributed import World
from student.runs.inputs import RunInputs
from student.runs.layout import BEST
from student.runs.run import Run
from student.training.metrics_log import Row


class Validation:
    """The split, and the best mean over the subsets so far."""

    def __init__(self, inputs: RunInputs, world: World) -> None:
        self.inputs, self.world = inputs, world
        config = inputs.config
        self.refs = list_samples(inputs.manifest, config.evaluate.split, tuple(config.modalities))
        self.best = _best(inputs.run)

    def due(self, step: int) -> bool:
        """Whether to score after `step` steps."""
        train_config = self.inputs.config.train
        return step % train_config.validate_every == 0 or step == train_config.steps

    def score(self, model: Student) -> Row:
        """mIoU of all modalities, mean and worst of the subsets. Restores the model's mode."""
        was_training = model.training
        counts = count_subsets(self.inputs, model.eval(), self.refs, world=self.world)
        model.train(was_training)
        scores = summarise(counts)
        return {
            "val_all": scores["all"],
            "val_mean": scores["mean"],
            "val_worst": scores["worst"]["miou"],
        }

    def improves(self, metrics: Row) -> bool:
        """Whether this mean is the best so far; if so, later ones are compared with it."""
        better = metrics["val_mean"] > self.best
        self.best = max(self.best, metrics["val_mean"])
        return better


def _best(run: Run) -> float:
    try:
        return float(read_json(run.state_of(BEST))["val_mean"])
    except (FileNotFoundError, json.JSONDecodeError):
        return -1.0
