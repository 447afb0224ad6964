"""Damage to training runs is named: identity, settings, checkpoint."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save

from flows.integrity.finding import Kind
from flows.integrity.verify_runs import examine_run
from pipeline.core.fingerprint import fingerprint
from pipeline.storage.files import read_json, write_json

IDENTITY = {"train": {"steps": 4}}


def checkpoint(folder: Path, step: int, *, inside: int | None = None, name: str = "last") -> Path:
    """A checkpoint as `student.runs.checkpoint` writes it; `inside`: the step in its metadata."""
    state = {"schema": 1, "step": inside or step, "identity": IDENTITY}
    tensors = {"model.weight": np.arange(600, dtype=np.float32)}
    data = save(tensors, metadata={"any2seg": json.dumps(state)})
    path = folder / "checkpoints" / f"{name}.safetensors"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    digest = hashlib.sha256(data).hexdigest()
    write_json(path.with_name(f"{name}.json"), {**state, "step": step, "sha256": digest})
    return path


@pytest.fixture
def run(tmp_path: Path) -> Path:
    folder = tmp_path / f"mine-{fingerprint(IDENTITY)[:12]}"
    write_json(folder / "run.json", {"run_id": folder.name, "identity": IDENTITY})
    (folder / "config.toml").write_text("name = 'mine'\n")
    checkpoint(folder, 4)
    return folder


def kinds(run: Path, *, deep: bool = True) -> list[Kind]:
    return [finding.kind for finding in examine_run(run, deep=deep)]


def test_a_complete_run_has_no_findings(run: Path) -> None:
    assert kinds(run) == []


def test_a_damaged_identity_or_config_is_a_finding(run: Path) -> None:
    described = read_json(run / "run.json")
    write_json(run / "run.json", {**described, "identity": {"train": {"steps": 5}}})
    assert kinds(run) == [Kind.RUN]
    (run / "run.json").unlink()
    (run / "config.toml").write_text("name = ")
    assert kinds(run) == [Kind.RUN, Kind.RUN]


def test_a_flipped_bit_is_found_only_by_a_deep_examination(run: Path) -> None:
    path = run / "checkpoints" / "last.safetensors"
    data = bytearray(path.read_bytes())
    data[-9] ^= 4
    path.write_bytes(data)
    assert kinds(run, deep=False) == []
    [finding] = examine_run(run, deep=True)
    assert finding.kind == Kind.CHECKPOINT
    assert not finding.repairable


def test_a_truncated_or_missing_checkpoint_is_a_finding(run: Path) -> None:
    path = run / "checkpoints" / "last.safetensors"
    path.write_bytes(path.read_bytes()[:-5])
    assert kinds(run, deep=False) == [Kind.CHECKPOINT]
    path.write_bytes(b"\xff" * 40)
    assert kinds(run, deep=False) == [Kind.CHECKPOINT]
    path.unlink()
    assert kinds(run, deep=False) == [Kind.CHECKPOINT]


def test_a_kill_between_checkpoint_and_state_file_has_its_own_kind(run: Path) -> None:
    checkpoint(run, 2, inside=4)
    assert kinds(run) == [Kind.CHECKPOINT_NEWER]
    checkpoint(run, 4, inside=2)
    assert kinds(run) == [Kind.CHECKPOINT]


def test_best_and_step_checkpoints_are_examined_too(run: Path) -> None:
    path = checkpoint(run, 2, name="best")
    checkpoint(run, 3, name="step-000003")
    assert kinds(run) == []
    path.write_bytes(path.read_bytes()[:-1])
    (run / "checkpoints" / "step-000003.safetensors").unlink()
    cut, gone = examine_run(run, deep=False)
    assert (cut.location, gone.problem) == (str(path), "expected a file, found none")
    assert cut.remedy == f"delete {path} and {path.with_suffix('.json')}"
