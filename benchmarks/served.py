"""Shared by the benchmarks of schedules: a server, a served flow and a growing dataset folder.

No benchmark itself: `nightly`, `served_kills` and `flow_kills` import it.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from PIL import Image

from flows.persistent_server import api_url, server_environment
from pipeline.datasets.synthetic import render_scene

CONFIG = """
name = "field"
workspace = "./workspace"
modalities = { rgb = {}, depth = {} }
store = { shard_size = 8 }
prepare = { workers = 1 }
teacher = { batch_size = 8 }
student = { weights = "none", head_channels = 16 }
train = { steps = STEPS, batch_size = 2, checkpoint_every = 10, warmup_steps = 1 }
evaluate = { batch_size = 8, num_pictures = 2 }

[dataset]
adapter = "folder"
root = "./tree"
classes = CLASSES
"""


def write_scenes(tree: Path, split: str, numbers: range, size_px: int = 64) -> None:
    """Rendered `rgb`, `depth` and `label` images, named by number."""
    for number in numbers:
        scene = render_scene(7, number, size_px)
        for name in ("rgb", "depth", "label"):
            path = tree / name / split / f"{number:05d}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(getattr(scene, name)).save(path)


def write_config(folder: Path, steps: int) -> Path:
    """The experiment's config; returns its path."""
    classes = json.dumps([f"class-{i}" for i in range(25)])
    path = folder / "field.toml"
    path.write_text(CONFIG.replace("STEPS", str(steps)).replace("CLASSES", classes))
    return path


def free_port() -> int:
    """A port that is free now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def server(folder: Path) -> Iterator[str]:
    """`any2seg server` for the length of the block; yields its API's URL."""
    port = free_port()
    environment = {k: v for k, v in os.environ.items() if not k.startswith("PREFECT_")}
    environment["PREFECT_HOME"] = str(folder / "prefect")
    environment["PREFECT_SERVER_DATABASE_CONNECTION_URL"] = (
        f"sqlite+aiosqlite:///{folder / 'prefect.db'}"
    )
    command = [sys.executable, "-m", "flows.cli", "server", "--port", str(port)]
    with (folder / "server.log").open("wb") as log:
        process = subprocess.Popen(
            command, env=server_environment(port, environment), stdout=log, stderr=log
        )
    try:
        wait_for(lambda: answers(f"{api_url(port)}/health"), 300)
        yield api_url(port)
    finally:
        process.terminate()
        process.wait()


def answers(url: str) -> bool:
    """Whether a GET succeeds."""
    try:
        with urllib.request.urlopen(url, timeout=5):
            return True
    except OSError:
        return False


def serve(url: str, config: Path, interval_s: int) -> subprocess.Popen[bytes]:
    """`any2seg serve --interval` in a process group of its own; its output is `serve.log`."""
    folder = config.parent
    environment = {k: v for k, v in os.environ.items() if not k.startswith("PREFECT_")}
    environment |= {"PREFECT_HOME": str(folder / "prefect"), "PREFECT_API_URL": url}
    command = [sys.executable, "-m", "flows.cli", "serve", str(config)]
    with (folder / "serve.log").open("ab") as log:
        return subprocess.Popen(
            [*command, "--interval", str(interval_s)],
            env=environment,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )


def kill_group(process: subprocess.Popen[bytes]) -> None:
    """`kill -9` of a process and of all that it started."""
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def post(url: str, path: str, body: dict[str, Any]) -> Any:
    """The answer of the server's API."""
    request = urllib.request.Request(
        url + path, json.dumps(body).encode(), {"content-type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=60) as answer:
        return json.load(answer)


def runs(url: str, *states: str) -> list[dict[str, Any]]:
    """Flow runs in any of these states, by the time they were due."""
    query = {"flow_runs": {"state": {"type": {"any_": list(states)}}}}
    return sorted(post(url, "/flow_runs/filter", query), key=lambda run: run["expected_start_time"])


def wait_for(find: Callable[[], Any], seconds: float) -> Any:
    """What `find` returns once it is true. Raises `TimeoutError`."""
    deadline = time.monotonic() + seconds
    while not (result := find()):
        if time.monotonic() > deadline:
            raise TimeoutError(f"{find} stayed false for {seconds} s")
        time.sleep(0.1)
    return result


def committed(workspace: Path) -> dict[Path, int]:
    """Every commit record of the teacher, shard and run, with the time of its last change in ns."""
    patterns = ("targets/*/*/ledger/*/*.json", "datasets/*/shards/*/*.tar", "runs/*/run.json")
    return {p: p.stat().st_mtime_ns for pattern in patterns for p in workspace.glob(pattern)}
