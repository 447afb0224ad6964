"""A small run of `benchmarks/kills.py`: killed at random instants, the next run makes the same bytes."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.proof
@pytest.mark.timeout(900)
def test_four_kills_leave_the_same_bytes() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.kills", "2", "2", "1"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    lines = [line.split() for line in done.stdout.splitlines()]
    kills = {line[0]: int(line[1]) for line in lines if line[0] in {"prepare", "precompute"}}
    assert min(kills.values()) >= 2, done.stdout
