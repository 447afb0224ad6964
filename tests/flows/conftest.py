"""A growing folder of pictures, a config for it, and one real Prefect server for the room."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from flows.persistent_server import server_environment

SIZE = (32, 32)
CONFIG = """
name = "field"
workspace = "./workspace"
modalities = { nir = {}, red = { kind = "gray" } }
store = { shard_size = 4 }
prepare = { workers = 1 }
student = { weights = "none", head_channels = 8 }
train = { steps = 2, batch_size = 2, checkpoint_every = 1, warmup_steps = 1 }
evaluate = { batch_size = 4, num_pictures = 2 }

[dataset]
adapter = "folder"
root = "./tiles"
classes = ["soil", "crop", "weed"]
"""


def write_samples(root: Path, split: str, numbers: range) -> None:
    """Random `nir`, `red` and `label` pictures named by number."""
    for number in numbers:
        rng = np.random.default_rng([11, number])
        for name, top in (("nir", 256), ("red", 256), ("label", 3)):
            path = root / name / split / f"{split}{number:03d}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(rng.integers(0, top, SIZE, dtype=np.uint8)).save(path)


@pytest.fixture
def field(tmp_path: Path) -> Path:
    """The config of 8 training and 4 validation samples that nothing was done with yet."""
    return new_field(tmp_path)


def new_field(folder: Path) -> Path:
    """Write the tree and its config into `folder`."""
    write_samples(folder / "tiles", "train", range(8))
    write_samples(folder / "tiles", "val", range(100, 104))
    config = folder / "field.toml"
    config.write_text(CONFIG)
    return config


@dataclass(frozen=True)
class Server:
    """A real Prefect server on loopback."""

    url: str
    home: Path

    @property
    def environment(self) -> dict[str, str]:
        """For processes that use it."""
        inherited = {k: v for k, v in os.environ.items() if not k.startswith("PREFECT_")}
        ours = {"PREFECT_HOME": str(self.home), "PREFECT_API_URL": self.url}
        return inherited | ours | {"OMP_NUM_THREADS": "1", "COLUMNS": "200"}


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Started once, with all of its services; its database is `home/prefect.db`."""
    home = tmp_path_factory.mktemp("server")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    inherited = {k: v for k, v in os.environ.items() if not k.startswith("PREFECT_")}
    inherited["PREFECT_HOME"] = str(home)
    database = f"sqlite+aiosqlite:///{home / 'prefect.db'}"
    inherited["PREFECT_SERVER_DATABASE_CONNECTION_URL"] = database
    command = [sys.executable, "-m", "prefect", "server", "start", "--host", "127.0.0.1"]
    with (home / "server.log").open("wb") as log:
        process = subprocess.Popen(
            [*command, "--port", str(port), "--analytics-off"],
            env=server_environment(port, inherited),
            stdout=log,
            stderr=subprocess.STDOUT,
        )
    try:
        _wait_for(f"http://127.0.0.1:{port}/api/health", process)
        yield Server(f"http://127.0.0.1:{port}/api", home)
    finally:
        process.terminate()
        try:
            process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _wait_for(url: str, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        assert process.poll() is None, "the server ended"
        try:
            with urllib.request.urlopen(url, timeout=5):
                return
        except OSError:
            time.sleep(0.2)
    raise TimeoutError(url)


@pytest.fixture
def prefect(server: Server) -> Iterator[Server]:
    """Flows called in this process use the room's server."""
    from prefect.logging.handlers import APILogHandler
    from prefect.settings import PREFECT_API_URL, temporary_settings

    with temporary_settings({PREFECT_API_URL: server.url}):
        yield server
        APILogHandler().flush()
