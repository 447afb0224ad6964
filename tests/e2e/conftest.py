"""A small but whole experiment: rendered scenes, the packaged teacher, a student, run by the command."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

CONFIG = """
name = "small"
workspace = "./workspace"
dataset = { adapter = "synthetic", num_train = 20, num_val = 4, num_test = 8, size_px = 64 }
modalities = { rgb = {}, depth = {}, event = {}, lidar = {} }
store = { shard_size = 8 }
prepare = { workers = 1 }
student = { weights = "none", head_channels = 16 }
train = { steps = 4, batch_size = 2, checkpoint_every = 1, warmup_steps = 1 }
evaluate = { split = "test", batch_size = 8 }
compare = { mean-fusion = ["student.fusion=mean", "student.lscd.inter=0", "student.lscd.intra=0"] }
"""


def command(*arguments: str) -> list[str]:
    """The command line of `any2seg ARGUMENTS` in this interpreter."""
    return [sys.executable, "-m", "flows.cli", *arguments]


def environment(home: Path) -> dict[str, str]:
    """A quiet environment with Prefect's files in `home` and one thread a process."""
    inherited = {k: v for k, v in os.environ.items() if not k.startswith("PREFECT_")}
    return inherited | {"PREFECT_HOME": str(home), "OMP_NUM_THREADS": "1", "COLUMNS": "200"}


def files_of(folder: Path) -> dict[str, bytes]:
    """Every file under `folder`, by relative path."""
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@pytest.fixture(scope="session")
def prefect_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Prefect's own files, made once: the first start of its server builds a database."""
    return tmp_path_factory.mktemp("prefect")


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory, prefect_home: Path) -> Path:
    """The config of an experiment that was run once, uninterrupted."""
    config = tmp_path_factory.mktemp("finished") / "small.toml"
    config.write_text(CONFIG)
    done = subprocess.run(
        command("run", str(config)),
        env=environment(prefect_home),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return config
