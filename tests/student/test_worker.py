"""What one process of several reports, whichever rank it is."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pipeline.config.load import dump_config
from pipeline.core.stage_report import StageReport
from student import worker

STAGE = """
from pipeline.core.stage_report import StageReport
def count(config, workspace, *, progress):
    return StageReport("count", done=3, details={"progress": progress})
"""


@pytest.mark.parametrize("rank", ["0", "1"])
def test_the_first_process_leaves_the_report(
    rank: str, make_config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "counting.py").write_text(STAGE)
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "config.toml").write_text(dump_config(make_config(tmp_path / "empty")))
    monkeypatch.setenv("RANK", rank)
    answer = tmp_path / "answer.json"
    paths = (str(tmp_path / "config.toml"), str(answer))
    assert worker.main("counting:count", *paths, "1") == 0
    assert answer.exists() == (rank == "0")
    if rank == "0":
        report = StageReport.from_json(json.loads(answer.read_text())["report"])
        assert report == StageReport("count", done=3, details={"progress": True})


def test_a_process_that_is_not_the_first_reports_its_error_too(make_config, tmp_path, monkeypatch):
    config = make_config(tmp_path / "empty")
    (tmp_path / "config.toml").write_text(dump_config(config))
    monkeypatch.setenv("RANK", "1")
    answer = tmp_path / "answer.json"
    paths = (str(tmp_path / "config.toml"), str(answer))
    assert worker.main("student.evaluation.evaluate:evaluate", *paths, "0") == 1
    assert json.loads(answer.read_text())["error"]["kind"] == "DatasetError"
