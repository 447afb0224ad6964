"""The server that `any2seg server` starts: where it writes, what it refuses, and on PostgreSQL."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import FlowRun
from prefect.settings import PREFECT_API_URL, temporary_settings

from flows.persistent_server import PortTaken, api_url, require_free, server_environment
from flows.serve import load_flow

ROOT = Path(__file__).parents[2]
DATABASE = "PREFECT_SERVER_DATABASE_CONNECTION_URL"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def test_telemetry_is_off_whatever_the_environment_sets() -> None:
    environment = server_environment(4200, {"DO_NOT_TRACK": "0", "HOME": "/nowhere"})
    assert environment["DO_NOT_TRACK"] == "1"
    assert environment["PREFECT_SERVER_ANALYTICS_ENABLED"] == "false"


def test_a_configured_database_is_kept() -> None:
    assert server_environment(4200, {DATABASE: "postgresql+asyncpg://h/p"})[DATABASE] == (
        "postgresql+asyncpg://h/p"
    )
    older = server_environment(
        4200, {"PREFECT_API_DATABASE_CONNECTION_URL": "sqlite+aiosqlite:///x"}
    )
    assert DATABASE not in older
    assert server_environment(4200, {})[DATABASE].startswith("sqlite+aiosqlite:///")


def test_a_port_in_use_is_named() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = int(taken.getsockname()[1])
        with pytest.raises(PortTaken, match=str(port)):
            require_free(port)
    require_free(free_port())


@contextmanager
def any2seg_server(port: int, environment: dict[str, str]) -> Iterator[None]:
    """`any2seg server` in the foreground of a process of its own; it must end at Ctrl-C."""
    process = subprocess.Popen(
        [sys.executable, "-m", "flows.cli", "server", "--port", str(port)],
        env={**environment, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        wait_for_health(port, process)
        yield
        process.send_signal(signal.SIGINT)
        process.wait(timeout=60)
    finally:
        process.kill()
        process.wait()


def wait_for_health(port: int, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 240
    while True:
        assert process.poll() is None, "the server ended"
        assert time.monotonic() < deadline
        try:
            with urllib.request.urlopen(f"{api_url(port)}/health", timeout=5):
                return
        except OSError:
            time.sleep(0.2)


@pytest.fixture(scope="module")
def postgres() -> Iterator[str]:
    """The URL of an empty database in a private cluster on loopback."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb")) or [
        Path(path) for path in [shutil.which("initdb")] if path
    ]
    if not found:
        pytest.skip("no PostgreSQL here (Debian: apt install postgresql)")
    folder, port = Path(tempfile.mkdtemp(prefix="any2seg-pg-")), free_port()
    user = "postgres" if os.geteuid() == 0 else None  # PostgreSQL refuses to run as root
    if user:
        shutil.chown(folder, user)

    def call(program: str, *words: str) -> None:
        command = [str(found[-1].with_name(program)), *words]
        subprocess.run(command, user=user, cwd=folder, check=True, stdout=subprocess.DEVNULL)

    data = ("-D", str(folder / "data"))
    call("initdb", *data, "-U", "any2seg", "--auth=trust", "-E", "UTF8")
    call(
        "pg_ctl", *data, "-w", "-o", f"-p {port} -h 127.0.0.1 -k {folder} -F", "start", "-l", "log"
    )
    try:
        call("createdb", "-h", "127.0.0.1", "-p", str(port), "-U", "any2seg", "prefect")
        yield f"postgresql+asyncpg://any2seg@127.0.0.1:{port}/prefect"
    finally:
        call("pg_ctl", *data, "-w", "-m", "immediate", "stop")
        shutil.rmtree(folder)


def flow_runs(states: Sequence[str]) -> list[FlowRun]:
    with get_client(sync_client=True) as client:
        wanted = {"flow_runs": {"state": {"type": {"any_": list(states)}}}}
        answer = client.request("POST", "/flow_runs/filter", json=wanted)
        return [FlowRun.model_validate(run) for run in answer.json()]


@pytest.mark.proof
@pytest.mark.server
@pytest.mark.timeout(900)
def test_runs_and_schedules_on_postgresql_outlive_the_server(
    postgres: str, tmp_path: Path, field: Path
) -> None:
    port = free_port()
    environment = {k: v for k, v in os.environ.items() if not k.startswith("PREFECT_")}
    environment |= {"PREFECT_HOME": str(tmp_path / "home"), DATABASE: postgres}
    caller = environment | {"PREFECT_API_URL": api_url(port), "PYTHONPATH": str(ROOT)}
    with temporary_settings({PREFECT_API_URL: api_url(port)}):
        with any2seg_server(port, environment):
            subprocess.run(
                [sys.executable, "-m", "flows.cli", "refresh-teacher", str(field)],
                env=caller,
                check=True,
                capture_output=True,
            )
            load_flow("any2seg").to_deployment(
                name="every-minute", interval=60, parameters={"config_path": str(field)}
            ).apply()
            deadline = time.monotonic() + 120
            while not flow_runs(["SCHEDULED"]):
                assert time.monotonic() < deadline, "no scheduled run was ever created"
                time.sleep(1)
        with any2seg_server(port, environment):
            (kept,) = flow_runs(["COMPLETED"])
            assert flow_runs(["SCHEDULED"])
    assert kept.parameters["config_path"] == str(field)
    assert not (tmp_path / "home" / "prefect.db").exists()
