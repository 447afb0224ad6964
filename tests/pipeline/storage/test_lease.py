"""Leases: one holder at a time, death seen, takeover without clocks, a lost lease stops writing."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from pipeline.errors import LeaseLost, WorkspaceBusy
from pipeline.storage import lease as lease_module
from pipeline.storage.files import AnyPath, write_bytes
from pipeline.storage.lease import lease, locked
from pipeline.storage.remote_path import RemotePath
from tests.support.object_server import ObjectServer

TTL_S = 0.6
HOLD = """
import sys, time
from pathlib import Path
from pipeline.storage.lease import lease
from pipeline.storage.remote_path import RemotePath
text = sys.argv[1]
path = RemotePath.of(text) if "://" in text else Path(text)
with lease(path, ttl_s=float(sys.argv[2]), wait=False):
    print("held", flush=True)
    time.sleep(60)
"""

HOLD_LOCK = """
import sys, time
from pathlib import Path
from pipeline.storage.lease import locked
with locked(Path(sys.argv[1]), wait=False):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture(params=["disk", pytest.param("store", marks=pytest.mark.server)])
def lease_path(request: pytest.FixtureRequest, tmp_path: Path) -> AnyPath:
    """Where the lease lies: on disk, and in an object store."""
    if request.param == "disk":
        return tmp_path / "folder/.lease"
    prefix: RemotePath = request.getfixturevalue("prefix")
    return prefix / ".lease"


@contextmanager
def holder(path: AnyPath, ttl_s: float = TTL_S) -> Iterator[subprocess.Popen[str]]:
    """Another process that holds the lease."""
    command = [sys.executable, "-c", HOLD, str(path), str(ttl_s)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        try:
            yield process
        finally:
            process.kill()


def holder_pid(path: AnyPath) -> int | None:
    """Who holds the lease, by what lies there."""
    data = path.read_bytes()
    pid: int | None = json.loads(data).get("pid") if data else None
    return pid


def test_a_live_holder_raises_workspace_busy_with_its_pid(lease_path: AnyPath) -> None:
    with (
        holder(lease_path, ttl_s=5) as process,
        pytest.raises(WorkspaceBusy, match=f"pid {process.pid} on "),
        lease(lease_path, ttl_s=TTL_S, wait=False),
    ):
        pytest.fail("two holders")


def test_a_lease_of_a_dead_local_process_is_taken_over_at_once(lease_path: AnyPath) -> None:
    with holder(lease_path, ttl_s=3600) as process:
        process.kill()
        process.wait()
        with lease(lease_path, wait=False):
            assert holder_pid(lease_path) == os.getpid() != process.pid


def test_a_released_lease_can_be_taken_again(lease_path: AnyPath) -> None:
    for _ in range(3):
        with lease(lease_path, ttl_s=TTL_S, wait=False):
            assert holder_pid(lease_path) == os.getpid()
        assert holder_pid(lease_path) is None


def test_an_error_in_the_body_frees_the_lease(lease_path: AnyPath) -> None:
    with pytest.raises(ZeroDivisionError), lease(lease_path, ttl_s=3600):
        raise ZeroDivisionError
    with lease(lease_path, ttl_s=3600, wait=False):
        pass


def test_concurrent_holders_exclude_each_other(lease_path: AnyPath) -> None:
    path, turns = lease_path.with_name("count"), 4
    write_bytes(path, b"0")

    def count() -> None:
        for _ in range(turns):
            with lease(lease_path, ttl_s=10):
                number = int(path.read_text())
                time.sleep(0.01)
                write_bytes(path, str(number + 1).encode())

    threads = [threading.Thread(target=count) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert path.read_text() == str(3 * turns)


@pytest.mark.server
def test_a_silent_remote_holders_lease_expires_after_its_time_to_live(
    prefix: RemotePath, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lease_module, "_is_dead", lambda _: False)
    path = prefix / ".lease"
    with holder(path, ttl_s=1.5) as process:
        process.kill()
        started = time.monotonic()
        with lease(path, ttl_s=TTL_S, wait=False):
            assert time.monotonic() - started >= 1.0


@pytest.mark.server
@pytest.mark.parametrize("since", ["1970-01-01T00:00:00+00:00", "2999-01-01T00:00:00+00:00"])
def test_expiry_ignores_the_holders_wall_clock(prefix: RemotePath, since: str) -> None:
    path = prefix / ".lease"
    other = {"host": "h", "pid": 1, "process": "", "since": since, "ttl_s": TTL_S, "counter": 1}
    path.write(json.dumps(other).encode())
    started = time.monotonic()
    with lease(path, ttl_s=TTL_S, wait=False):
        assert time.monotonic() - started >= TTL_S


@pytest.mark.server
def test_a_lost_lease_stops_writes_below_it(prefix: RemotePath) -> None:
    path = prefix / "folder/.lease"
    other = {"host": "thief", "pid": 9, "process": "", "since": "now", "ttl_s": 60, "counter": 1}

    def work() -> None:
        with lease(path, ttl_s=TTL_S):
            write_bytes(path.parent / "deep/er", b"mine")
            path.write(json.dumps(other).encode())
            time.sleep(TTL_S)
            write_bytes(prefix / "elsewhere", b"not guarded")
            write_bytes(path.parent / "deep/er", b"no longer mine")

    with pytest.raises(LeaseLost, match="pid 9 on thief|could not renew"):
        work()
    assert (prefix / "folder/deep/er").read_bytes() == b"mine"
    assert (prefix / "elsewhere").exists()
    assert json.loads(path.read_bytes())["host"] == "thief"


@pytest.mark.server
def test_a_holder_that_cannot_renew_loses_the_lease_by_its_own_clock(
    prefix: RemotePath, object_server: ObjectServer
) -> None:
    path = prefix / "folder/.lease"

    def work() -> None:
        with lease(path, ttl_s=TTL_S):
            object_server.fail_from(0, 1.0)
            time.sleep(1.5 * TTL_S)
            object_server.fail_from(0, 0.0)
            write_bytes(path.parent / "x", b"")

    with pytest.raises(LeaseLost, match="could not renew"):
        work()
    assert not (path.parent / "x").exists()


@pytest.mark.server
def test_a_lease_is_renewed_while_requests_fail(
    prefix: RemotePath, object_server: ObjectServer
) -> None:
    object_server.fail_from(3, 0.2)
    with lease(prefix / ".lease", ttl_s=10):
        for index in range(20):
            time.sleep(0.2)
            write_bytes(prefix / str(index), b"")
    assert len(prefix.entries()) == 21


@pytest.mark.server
def test_locked_is_a_lease_in_an_object_store(prefix: RemotePath) -> None:
    with locked(prefix / ".lock", wait=False):
        assert json.loads((prefix / ".lock").read_bytes())["ttl_s"] == lease_module.TTL_S


def test_a_disk_lock_excludes_others_until_its_process_ends(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    command = [sys.executable, "-c", HOLD_LOCK, str(path)]
    root = Path(__file__).parents[3]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=root) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(WorkspaceBusy, match="another process"), locked(path, wait=False):
            pass
        holder.kill()
    with locked(path, wait=False):
        pass
    with locked(path, wait=True):
        pass
