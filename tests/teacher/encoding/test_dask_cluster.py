"""The teacher pass on several workers: the same bytes, whoever dies, and nobody left behind."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch

from flows.temporary_server import QUIET
from pipeline.config.config import Config
from pipeline.config.load import dump_config
from pipeline.errors import ConfigError, CorruptShard, MissingTarget
from pipeline.shards.manifest import Manifest
from pipeline.workspace import Workspace
from teacher.encoding import dask_cluster as scale
from teacher.encoding.dask_cluster import NoCluster, precompute_spread
from teacher.encoding.precompute import precompute
from teacher.encoding.units import num_targets, plan_towers, plan_units
from tests.teacher.conftest import config, prepared, root, source

__all__ = ["config", "prepared", "root", "source"]
pytestmark = [pytest.mark.slow, pytest.mark.server, pytest.mark.timeout(900)]


def with_scale(config: Config, **settings: Any) -> Config:
    data = config.model_dump(mode="json", exclude_none=True)
    return Config.model_validate({**data, "scale": settings})


def targets(workspace: Path) -> dict[str, bytes]:
    """Numbers, records, provenance and prompts; not what they cost."""
    return {
        str(path.relative_to(workspace)): path.read_bytes()
        for top in ("targets", "prompts")
        for path in (workspace / top).rglob("*")
        if path.is_file() and "cost" not in path.parts
    }


@pytest.fixture(autouse=True)
def _equal_threads(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The last bit of a number depends on how many threads computed it, here and in the workers."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def single(config: Config, root: Path) -> dict[str, bytes]:
    """What a pass in one process writes; the config's own workspace is left without targets."""
    precompute(config, Workspace.of(config), progress=False)
    found = targets(root / "workspace")
    for top in ("targets", "prompts"):
        shutil.rmtree(root / "workspace" / top)
    return found


def worker_processes() -> list[psutil.Process]:
    """Dask's workers below this process."""
    return [p for p in psutil.Process().children(recursive=True) if is_worker(p)]


def is_worker(process: psutil.Process) -> bool:
    try:
        return "spawn_main" in " ".join(process.cmdline())
    except psutil.Error:
        return False


def records(workspace: Path) -> list[Path]:
    return sorted(workspace.glob("targets/*/*/ledger/*/*.json"))


def wait_until(happened: Any, seconds: float = 400) -> None:
    deadline = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < deadline
        time.sleep(0.002)


@pytest.mark.proof
def test_a_killed_worker_leaves_its_range_to_another(
    config: Config, root: Path, single: dict[str, bytes]
) -> None:
    spread = with_scale(config, workers=2)
    outcome: list[Any] = []
    work = threading.Thread(
        target=lambda: outcome.append(precompute_spread(spread, Workspace.of(spread)))
    )
    work.start()
    wait_until(lambda: records(root / "workspace"))
    victims = [process for process in worker_processes() if process.num_threads() > 1]
    committed = {path: path.stat().st_mtime_ns for path in records(root / "workspace")}
    victims[0].kill()
    work.join(timeout=400)
    assert outcome
    assert targets(root / "workspace") == single
    assert {path: path.stat().st_mtime_ns for path in committed} == committed
    again = precompute_spread(spread, Workspace.of(spread), progress=False)
    assert (again.done, again.skipped) == (0, outcome[0].done)
    assert not worker_processes()


@pytest.mark.proof
def test_workers_end_with_a_parent_that_was_killed(config: Config, root: Path) -> None:
    file = root / "spread.toml"
    file.write_text(dump_config(config))
    command = [sys.executable, "-m", "flows.cli", "precompute", str(file), "--workers", "2"]
    parent = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    wait_until(lambda: records(root / "workspace"))
    workers = psutil.Process(parent.pid).children(recursive=True)
    assert sum(map(is_worker, workers)) >= 2
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    _, alive = psutil.wait_procs(workers, timeout=20)
    assert alive == []


@pytest.fixture
def cluster(tmp_path: Path) -> Any:
    """`dask scheduler` and one `dask worker` on loopback, as an operator starts them."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"tcp://127.0.0.1:{probe.getsockname()[1]}"
    quiet = {"cwd": tmp_path, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    env = {**os.environ, **QUIET, "PYTHONPATH": str(Path(__file__).parents[3])}
    dask = [sys.executable, "-m", "dask"]
    port = address.rpartition(":")[2]
    started = [
        subprocess.Popen([*dask, *words, "--no-dashboard"], env=env, **quiet)
        for words in (
            ["scheduler", "--host", "127.0.0.1", "--port", port],
            ["worker", address, "--host", "127.0.0.1", "--nthreads", "1", "--no-nanny"],
        )
    ]
    yield address
    for process in reversed(started):
        process.terminate()
        process.wait(timeout=60)


@pytest.mark.proof
def test_a_range_that_fails_leaves_the_others_their_work(
    config: Config, root: Path, single: dict[str, bytes], cluster: str
) -> None:
    """On a running scheduler; once the corruption is fixed, only that range is done."""
    spread = with_scale(config, dask=cluster)
    workspace = Workspace.of(spread)
    shards = Manifest.load(workspace.dataset(config)).all_shards
    damaged = Path(str(shards[1].path))
    whole = damaged.read_bytes()
    damaged.write_bytes(whole.replace(b"ustar", b"damag", 1))
    with pytest.raises(CorruptShard, match=shards[1].name):
        precompute_spread(spread, workspace, progress=False)
    missing = plan_units(plan_towers(config, workspace), shards)
    assert {unit.shard for unit in missing} == {shards[1].name}
    damaged.write_bytes(whole)
    report = precompute_spread(spread, workspace, progress=False)
    assert report.details["workers"] == 1
    assert report.done == num_targets(missing)
    assert targets(root / "workspace") == single


def test_a_scheduler_that_is_not_there_is_named(
    config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scale, "CONNECT_TIMEOUT_S", 2)
    spread = with_scale(config, dask="tcp://127.0.0.1:1")
    with pytest.raises(NoCluster, match="dask scheduler"):
        precompute_spread(spread, Workspace.of(spread), progress=False)


def test_units_that_stay_missing_are_not_called_done(config: Config) -> None:
    workspace = Workspace.of(config)
    shards = Manifest.load(workspace.dataset(config)).all_shards
    units = plan_units(plan_towers(config, workspace), shards)
    with pytest.raises(MissingTarget, match="same workspace"):
        scale._require_done(units)
    scale._require_done([])


@pytest.mark.parametrize(
    "wrong",
    [{"workers": 0}, {"workers": 2, "dask": "tcp://h:1"}, {"dask": "http://h:1"}, {"dask": "h:1"}],
)
def test_wrong_settings_are_refused(config: Config, wrong: dict[str, Any]) -> None:
    with pytest.raises((ConfigError, ValueError), match="scale"):
        with_scale(config, **wrong)
