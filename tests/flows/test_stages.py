"""Stages by name: what the flows add to them."""

from pathlib import Path

import pytest

from flows import stages
from pipeline.config.config import Config
from pipeline.config.load import load_config
from pipeline.core.stage_report import StageReport
from pipeline.workspace import Workspace


def fits(most: int, seen: list[int]):
    """An evaluation whose batches fit up to `most` samples."""

    def evaluate(config: Config, _: Workspace) -> StageReport:
        seen.append(config.evaluate.batch_size)
        if config.evaluate.batch_size > most:
            raise RuntimeError("CUDA out of memory. Tried to allocate 20 MiB")
        return StageReport("evaluate", done=1)

    return evaluate


def test_an_evaluation_that_does_not_fit_goes_on_with_half_the_batch(
    field: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, seen = load_config(field, ["evaluate.batch_size=16"]), []
    monkeypatch.setattr("student.evaluation.evaluate.evaluate", fits(5, seen))
    assert stages.evaluate(config, Workspace.of(config)).done == 1
    assert seen == [16, 8, 4]
    monkeypatch.setattr("student.evaluation.evaluate.evaluate", fits(0, seen))
    with pytest.raises(RuntimeError, match="out of memory"):
        stages.evaluate(config, Workspace.of(config))
    assert seen[3:] == [16, 8, 4, 2, 1]
