"""Two processes at one workspace: work may be done twice, nothing is lost, mixed or counted twice."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.config.config import Config
from pipeline.config.load import dump_config
from pipeline.shards.prepare import prepare
from pipeline.storage.lease import locked
from tests.faults.conftest import Made, files_of, moved

ROOT = Path(__file__).parents[2]
STAGE = """
import sys, torch
torch.set_num_threads(1)
from pipeline.config.load import load_config
from pipeline.workspace import Workspace
from {module} import {stage}
config = load_config(sys.argv[1])
print("ready", flush=True)
sys.stdin.readline()
{stage}(config, Workspace.of(config), progress=False)
"""


def start(module: str, stage: str, config: Path) -> subprocess.Popen[str]:
    """A process that is about to run the stage and waits for a line."""
    return subprocess.Popen(
        [sys.executable, "-c", STAGE.format(module=module, stage=stage), str(config)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )


def race(module: str, stage: str, config: Path) -> list[str]:
    """Let two processes begin at once; returns what each complained of."""
    processes = [start(module, stage, config) for _ in range(2)]
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    return [process.communicate(timeout=300)[1] for process in processes]


@pytest.fixture
def empty(original: tuple[Config, Path], tmp_path: Path) -> tuple[Made, Path]:
    """The config of a workspace that does not exist yet, and its file."""
    config = moved(original[0], tmp_path / "workspace")
    path = tmp_path / "config.toml"
    path.write_text(dump_config(config))
    return Made(config, files_of(original[1] / "workspace")), path


@pytest.mark.proof
def test_two_teacher_passes_fill_one_store(empty: tuple[Made, Path]) -> None:
    made, path = empty
    prepare(made.config, made.workspace, progress=False)
    complaints = race("teacher.encoding.precompute", "precompute", path)
    assert complaints == ["", ""]
    assert made.files() == made.whole
    assert made.findings() == ()


def test_two_prepare_runs_write_one_dataset(empty: tuple[Made, Path]) -> None:
    """The second is refused while the first writes, or finds everything done."""
    made, path = empty
    for complaint in race("pipeline.shards.prepare", "prepare", path):
        assert complaint == "" or "WorkspaceBusy" in complaint
    datasets = {name: data for name, data in made.whole.items() if name.startswith("datasets/")}
    assert made.files() == datasets
    assert made.findings() == ()


def test_repair_fails_at_once_if_the_dataset_is_locked(made: Made) -> None:
    from pipeline.errors import WorkspaceBusy

    (made.shards / "train-000001.tar").unlink()
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(made.dataset / ".lock")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )
    assert holder.stdout is not None
    assert holder.stdout.readline() == "held\n"
    with pytest.raises(WorkspaceBusy):
        made.repair()
    holder.communicate("\n", timeout=60)
    assert made.repair().left == ()
    with locked(made.dataset / ".lock", wait=False):
        assert made.findings() == ()


HOLD = """
import sys, pathlib
from pipeline.storage.lease import locked
with locked(pathlib.Path(sys.argv[1]), wait=False):
    print("held", flush=True)
    sys.stdin.readline()
"""
