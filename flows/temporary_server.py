"""A Prefect API for one run on this machine.

If `PREFECT_API_URL` is set (in the environment or the active profile) that server is used. Otherwise a
loopback server is started for the duration of the run. Unlike Prefect's own temporary server it ends with
this process even when this process is killed. Analytics and telemetry are off.
"""

from __future__ import annotations

import os
import socket
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from subprocess import Popen

from pipeline.core.child import Exit, death_text, start_module, stop
from pipeline.errors import Any2SegError

STARTUP_TIMEOUT_S = 300.0
QUIET = {
    "DO_NOT_TRACK": "1",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "PREFECT_CLOUD_ENABLE_ORCHESTRATION_TELEMETRY": "false",
}


class ServerNotStarted(Any2SegError):
    """The temporary Prefect server did not respond in time."""


@contextmanager
def prefect_api() -> Iterator[str]:
    """Yield the URL of a responding Prefect API; it is the active one inside the block."""
    for name, value in QUIET.items():
        os.environ.setdefault(name, value)
    from prefect.settings import PREFECT_API_URL, temporary_settings

    configured = PREFECT_API_URL.value()
    if configured:
        yield configured
        return
    port = _free_port()
    server = _start(port)
    try:
        url = f"http://127.0.0.1:{port}/api"
        _wait_until_healthy(server, url)
        with temporary_settings({PREFECT_API_URL: url}):
            yield url
            _send_pending_logs()
    finally:
        stop(server)


def _send_pending_logs() -> None:
    """Prefect sends logs from a background thread; send the last ones before the server ends."""
    from prefect.logging.handlers import APILogHandler

    APILogHandler().flush()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _start(port: int) -> Popen[str]:
    arguments = ["--factory", "prefect.server.api.server:create_app", "--log-level", "error"]
    arguments += ["--host", "127.0.0.1", "--port", str(port)]
    environment = {**os.environ, "PREFECT_UI_ENABLED": "0", "PREFECT__SERVER_EPHEMERAL": "1"}
    return start_module("uvicorn", arguments, environment=environment)


def _wait_until_healthy(server: Popen[str], url: str) -> None:
    deadline = time.monotonic() + STARTUP_TIMEOUT_S
    while time.monotonic() < deadline and server.poll() is None:
        try:
            with urllib.request.urlopen(f"{url}/health", timeout=5) as response:
                if response.status == 200:
                    return
        except (urllib.error.URLError, OSError):
            time.sleep(0.1)
    code = server.poll()
    how = f"did not respond within {STARTUP_TIMEOUT_S:.0f} s" if code is None else Exit(code)
    resume = "Start one with `prefect server start --host 127.0.0.1`, set PREFECT_API_URL, and run again."
    what = f"{url}: the temporary Prefect server"
    raise ServerNotStarted(death_text(what, how, "printed above", resume))
