"""Experiment trackers that get the metrics too: TensorBoard, Weights & Biases, MLflow.

`open_tracker(name, run, first)` returns a `Tracker`; `auto` is TensorBoard where it is installed.
TensorBoard writes `runs/<run-id>/tensorboard/`; the others write where their own settings say. A
tracker that is asked for by name but not installed is a `ConfigError`.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, Protocol

from pipeline.errors import ConfigError
from student.runs.run import Run

TrackerName = Literal["auto", "none", "tensorboard", "wandb", "mlflow"]
PROJECT = "any2seg"


class Tracker(Protocol):
    """Takes the metrics of a step."""

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """Record the metrics after `step` steps."""

    def close(self) -> None:
        """Flush what is pending."""


class NoTracker:
    """Discards everything."""

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """Nothing."""

    def close(self) -> None:
        """Nothing."""


class TensorBoard:
    """Event files in the run's folder; steps after `first` of an earlier attempt are hidden."""

    def __init__(self, run: Run, first: int) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._writer: Any = SummaryWriter(str(run.folder / "tensorboard"), purge_step=first + 1)

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """One scalar a metric."""
        for name, value in metrics.items():
            self._writer.add_scalar(name, value, step)

    def close(self) -> None:
        """Flush the event file."""
        self._writer.close()


class WeightsAndBiases:
    """A W&B run of the same id, so that a resumed training continues it."""

    def __init__(self, run: Run) -> None:
        import wandb

        self._run: Any = wandb.init(
            project=PROJECT, id=run.id, name=run.id, resume="allow", config=run.identity
        )

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """One W&B step."""
        self._run.log(dict(metrics), step=step)

    def close(self) -> None:
        """Finish the W&B run."""
        self._run.finish()


class Mlflow:
    """An MLflow run, found again by its name."""

    def __init__(self, run: Run) -> None:
        import mlflow

        self._mlflow: Any = mlflow
        mlflow.set_experiment(PROJECT)
        known = mlflow.search_runs(
            filter_string=f"attributes.run_name = '{run.id}'", output_format="list"
        )
        mlflow.start_run(run_id=known[0].info.run_id if known else None, run_name=run.id)
        if not known:
            mlflow.log_dict(run.identity, "identity.json")

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """One MLflow step."""
        self._mlflow.log_metrics(dict(metrics), step=step)

    def close(self) -> None:
        """End the MLflow run."""
        self._mlflow.end_run()


def open_tracker(name: TrackerName, run: Run, first: int) -> Tracker:
    """The tracker of a run that starts or resumes after `first` steps. Raises `ConfigError`."""
    local = isinstance(run.folder, Path)
    if name == "auto":
        name = "tensorboard" if local and _installed("tensorboard") else "none"
    if name == "none":
        return NoTracker()
    if not _installed(name):
        raise ConfigError(
            f"train.tracker: {name} is not installed. Run `pip install {name}`, or set it to 'none'."
        )
    if name == "tensorboard":
        if not local:
            raise ConfigError(
                "train.tracker: tensorboard writes to a local folder, the workspace is "
                f"{run.folder}; expected 'wandb', 'mlflow' or 'none'"
            )
        return TensorBoard(run, first)
    return WeightsAndBiases(run) if name == "wandb" else Mlflow(run)


def _installed(package: str) -> bool:
    return importlib.util.find_spec(package) is not None
