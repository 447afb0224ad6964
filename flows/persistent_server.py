"""A Prefect server for schedules, reachable from this machine only.

`run_server` replaces this process by Prefect's server: loopback only, with its UI, analytics off. Its
database is a SQLite file in the user's data folder, unless PREFECT_SERVER_DATABASE_CONNECTION_URL names
another (docs/operations.md has PostgreSQL). The database can be wiped at any time: what is finished is
read from the workspace, never from there.
"""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Mapping
from pathlib import Path

from platformdirs import user_data_path

from flows.temporary_server import QUIET
from pipeline.errors import Any2SegError

HOST = "127.0.0.1"
PORT = 4200
DATABASE_VARIABLES = (
    "PREFECT_SERVER_DATABASE_CONNECTION_URL",
    "PREFECT_API_DATABASE_CONNECTION_URL",
)


class PortTaken(Any2SegError):
    """Another process listens on the port."""


def api_url(port: int) -> str:
    """URL of the server's API."""
    return f"http://{HOST}:{port}/api"


def server_environment(port: int, inherited: Mapping[str, str]) -> dict[str, str]:
    """The server's environment. Inherited values win, except over those that turn telemetry off."""
    folder = user_data_path("any2seg")
    ours = {
        # A run holds its deployment's slot by a lease, and Prefect ends a run whose lease cannot be
        # renewed. In memory (the default) all leases would be lost when the server restarts.
        "PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE": (
            "prefect.server.concurrency.lease_storage.filesystem"
        ),
        "PREFECT_SERVER_UI_ENABLED": "true",
    }
    if not any(name in inherited for name in DATABASE_VARIABLES):
        ours[DATABASE_VARIABLES[0]] = f"sqlite+aiosqlite:///{folder / 'prefect.db'}"
    # The UI runs in the browser, so it needs the address as the browser sees it.
    return {**ours, **inherited, **QUIET, "PREFECT_SERVER_UI_API_URL": api_url(port)}


def require_free(port: int) -> None:
    """Raises `PortTaken`."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError as error:
            raise PortTaken(
                f"{HOST}:{port}: expected a free port, found: {error.strerror}. Is a server "
                f"running already? Another port: `any2seg server --port {port + 1}`."
            ) from None


def run_server(port: int) -> None:
    """Replace this process by the server; does not return. Raises `PortTaken`."""
    require_free(port)
    environment = server_environment(port, os.environ)
    database = environment.get(DATABASE_VARIABLES[0], "")
    if database.startswith("sqlite"):
        Path(database.partition("///")[2]).parent.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "prefect", "server", "start"]
    command += ["--host", HOST, "--port", str(port), "--analytics-off", "--ui"]
    os.execve(sys.executable, command, environment)
