"""A run's files by name, and what is read of them without torch."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.errors import CheckpointError
from pipeline.storage.files import write_json
from student.runs.layout import (
    LAST,
    RECORD,
    checkpoint_names,
    last_step,
    planned_steps,
    read_identity,
    read_record,
    state_path,
    tensors_path,
)
from student.runs.run import Run

IDENTITY = {"train": {"steps": 9}}


def test_a_run_and_the_layout_name_the_same_files(tmp_path: Path) -> None:
    run = Run("r-0", tmp_path, IDENTITY)
    assert run.checkpoint == tensors_path(tmp_path, LAST) == run.tensors_of(LAST)
    assert run.checkpoint_state == state_path(tmp_path, LAST)
    assert run.checkpoint == tmp_path / "checkpoints/last.safetensors"
    assert run.state_of("step-3") == tmp_path / "checkpoints/step-3.json"


def test_a_checkpoint_is_listed_by_either_file(tmp_path: Path) -> None:
    assert checkpoint_names(tmp_path) == []
    write_json(state_path(tmp_path, "last"), {})
    tensors_path(tmp_path, "best").write_bytes(b"")
    tensors_path(tmp_path, "last").write_bytes(b"")
    assert checkpoint_names(tmp_path) == ["best", "last"]


def test_the_record_is_read_or_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        read_identity(tmp_path)
    write_json(tmp_path / RECORD, {"run_id": "r-0", "identity": IDENTITY})
    assert read_record(tmp_path)["run_id"] == "r-0"
    assert planned_steps(read_identity(tmp_path)) == 9
    for content in ("null", "[]", "{", '{"identity": 3}', "{}"):
        (tmp_path / RECORD).write_text(content)
        with pytest.raises(ValueError, match="found|Expecting"):
            read_identity(tmp_path)


def test_last_step_is_zero_without_a_checkpoint_and_raises_if_corrupted(tmp_path: Path) -> None:
    assert last_step(tmp_path) == 0
    write_json(state_path(tmp_path, LAST), {"step": 4})
    assert last_step(tmp_path) == 4
    for content in ("null", "[]", "{", '{"step": null}', '{"step": "x"}'):
        state_path(tmp_path, LAST).write_text(content)
        with pytest.raises(CheckpointError, match=r"last.json: cannot be read.*any2seg train"):
            last_step(tmp_path)
