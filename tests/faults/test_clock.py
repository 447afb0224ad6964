"""Clocks that were set back, files from the future: nothing in a workspace depends on the time of day."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.config.config import Config
from pipeline.config.load import dump_config
from pipeline.shards.prepare import prepare
from teacher.encoding.precompute import precompute
from tests.faults.conftest import Made, files_of, flip_bit, moved

ROOT = Path(__file__).parents[2]
IN_1999, IN_2099 = 915_148_800, 4_070_908_800
SITE = """
import time
_offset = {start} - time.time()
_time, _time_ns = time.time, time.time_ns
time.time = lambda: _time() + _offset
time.time_ns = lambda: _time_ns() + int(_offset * 1e9)
"""
STAGES = """
import sys, time, torch
torch.set_num_threads(1)
from pipeline.config.load import load_config
from pipeline.shards.prepare import prepare
from pipeline.workspace import Workspace
from teacher.encoding.precompute import precompute
assert time.gmtime(time.time()).tm_year == 1999
config = load_config(sys.argv[1])
for stage in (prepare, precompute):
    report = stage(config, Workspace.of(config), progress=False)
    print(report.done)
"""


def run_in_1999(config: Config, folder: Path) -> list[int]:
    """Prepare and precompute in a process whose clock says 1999; units done."""
    (folder / "site").mkdir(exist_ok=True)
    (folder / "site" / "sitecustomize.py").write_text(SITE.format(start=IN_1999))
    path = folder / "config.toml"
    path.write_text(dump_config(config))
    done = subprocess.run(
        [sys.executable, "-c", STAGES, str(path)],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"PYTHONPATH": f"{folder / 'site'}{os.pathsep}{ROOT}"},
    )
    assert done.returncode == 0, done.stderr
    return [int(line) for line in done.stdout.split()]


def set_times(root: Path, moment: int) -> None:
    for path in root.rglob("*"):
        os.utime(path, (moment, moment))


def test_a_clock_set_back_gives_the_same_bytes(
    original: tuple[Config, Path], tmp_path: Path
) -> None:
    config = moved(original[0], tmp_path / "workspace")
    run_in_1999(config, tmp_path)
    made = Made(config, files_of(original[1] / "workspace"))
    assert made.files() == made.whole
    assert made.findings() == ()


@pytest.mark.parametrize("moment", [IN_2099, IN_1999])
def test_times_of_files_have_no_effect(made: Made, tmp_path: Path, moment: int) -> None:
    set_times(tmp_path / "workspace", moment)
    assert run_in_1999(made.config, tmp_path) == [0, 0]
    assert made.findings() == ()
    assert made.files() == made.whole


def test_repair_works_under_a_wrong_clock(made: Made, tmp_path: Path) -> None:
    """A damaged chunk that is newer, and a source that is older, than everything else."""
    flip_bit(made.chunk("rgb", "patch", 1))
    set_times(tmp_path / "workspace", IN_2099)
    assert made.repair().left == ()
    assert made.files() == made.whole
    prepare(made.config, made.workspace, progress=False)
    assert precompute(made.config, made.workspace, progress=False).done == 0
