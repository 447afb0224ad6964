"""Curves written by the real TensorBoard, read back by its own reader."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from pipeline.errors import ConfigError
from student.runs.run import Run
from student.training import trackers as tracking
from student.training.trackers import NoTracker, TensorBoard, open_tracker


def make_run(folder: Path) -> Run:
    return Run("toy-0123456789ab", folder, {"seed": 0})


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_curves_can_be_read_and_a_resumed_run_hides_what_it_repeats(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    run = make_run(tmp_path)
    first = open_tracker("auto", run, 0)
    assert isinstance(first, TensorBoard)
    for step in range(1, 6):
        first.log(step, {"loss": float(step)})
    first.close()
    # TensorBoard reads its files in the order of their names, which begin with the second.
    time.sleep(1.1)
    resumed = open_tracker("tensorboard", run, 3)
    resumed.log(4, {"loss": 40.0})
    resumed.close()
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    curve = [(e.step, e.value) for e in events.Scalars("loss")]
    assert curve == [(1, 1.0), (2, 2.0), (3, 3.0), (4, 40.0)]


def test_none_keeps_nothing(tmp_path: Path) -> None:
    tracker = open_tracker("none", make_run(tmp_path), 0)
    assert isinstance(tracker, NoTracker)
    tracker.log(1, {"loss": 1.0})
    tracker.close()
    assert not list(tmp_path.iterdir())


def test_a_tracker_that_is_not_installed_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tracking, "_installed", lambda package: False)
    assert isinstance(open_tracker("auto", make_run(tmp_path), 0), NoTracker)
    with pytest.raises(ConfigError, match="pip install wandb"):
        open_tracker("wandb", make_run(tmp_path), 0)
