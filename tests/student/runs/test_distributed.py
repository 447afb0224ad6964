"""Two real processes that agree."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from pipeline.errors import ConfigError
from student.runs.distributed import World, join_world

SCRIPT = """
import sys, torch
from student.runs.distributed import join_world
with join_world("cpu") as world:
    mean = world.mean(torch.tensor([float(world.rank), 10.0]))
    world.barrier()
    size = world.local_batch_size(8, 2)
    line = f"{world.rank} {world.size} {world.is_main_process} {mean.tolist()} {size}\\n"
    open(sys.argv[1] + str(world.rank), "w").write(line)
"""


def test_alone_there_is_nothing_to_agree_on() -> None:
    with join_world("cpu") as alone:
        assert alone == World()
        assert alone.is_main_process
        assert torch.equal(alone.mean(torch.tensor([3.0])), torch.tensor([3.0]))
        alone.barrier()


def test_batches_that_do_not_divide_are_refused() -> None:
    assert World(size=2).local_batch_size(12, 3) == 2
    with pytest.raises(ConfigError, match="multiple of 6"):
        World(size=2).local_batch_size(8, 3)


@pytest.mark.slow
def test_two_processes_average(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    root = Path(__file__).parents[3]
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    done = subprocess.run(
        [*command, str(script), str(tmp_path / "rank")],
        env={**os.environ, "PYTHONPATH": str(root), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "rank0").read_text() == "0 2 True [0.5, 10.0] 2\n"
    assert (tmp_path / "rank1").read_text() == "1 2 False [0.5, 10.0] 2\n"
