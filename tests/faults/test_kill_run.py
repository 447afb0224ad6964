"""`kill -9` of a whole run at random moments: the next run completes, the targets are byte-identical."""

import os
import random
import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests.e2e.conftest import CONFIG, command, environment, files_of, finished, prefect_home

__all__ = ["finished", "prefect_home"]
pytestmark = [pytest.mark.proof, pytest.mark.server, pytest.mark.timeout(1800)]

STAGE_TIMEOUT_S = 500
"""For a busy machine; a stage takes about twenty seconds."""

MILESTONES = (
    "datasets/*/shards/train/*.tar",
    "targets/*/*/targets.zarr/*/embedding/c/*",
    "runs/*/checkpoints/*",
)


def start(config: Path, home: Path) -> subprocess.Popen[bytes]:
    """The run in a process group of its own."""
    return subprocess.Popen(
        command("run", str(config)),
        env=environment(home),
        start_new_session=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


def wait_for(workspace: Path, pattern: str, process: subprocess.Popen[bytes]) -> None:
    """Until the first file of a stage appears."""
    deadline = time.monotonic() + STAGE_TIMEOUT_S
    while not any(workspace.glob(pattern)):
        assert process.poll() is None, f"the run ended before {pattern} appeared"
        assert time.monotonic() < deadline, f"{pattern} did not appear"
        time.sleep(0.01)


def test_three_kills_leave_the_same_targets(
    finished: Path, prefect_home: Path, tmp_path: Path
) -> None:
    config = tmp_path / "small.toml"
    config.write_text(CONFIG)
    moments = random.Random(20261122)
    for pattern in MILESTONES:
        process = start(config, prefect_home)
        wait_for(tmp_path / "workspace", pattern, process)
        time.sleep(moments.uniform(0.0, 0.5))
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    last = subprocess.run(
        command("run", str(config)),
        env=environment(prefect_home),
        capture_output=True,
        text=True,
        check=False,
    )
    assert last.returncode == 0, last.stdout + last.stderr
    for part in ("targets.zarr", "ledger"):
        killed = {k: v for k, v in files_of(tmp_path / "workspace/targets").items() if part in k}
        whole = {
            k: v for k, v in files_of(finished.parent / "workspace/targets").items() if part in k
        }
        assert killed
        assert killed == whole
