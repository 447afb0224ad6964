"""One writing flow per workspace: a lock that says who holds it.

A second flow does not wait and does not fail: it ends as `Skipped` and names the holder. The lock dies
with its process, so a killed flow never blocks the next one.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from typing import Any

from pipeline.errors import WorkspaceBusy
from pipeline.files import locked, read_json, write_json
from pipeline.workspace import Workspace

LOCK, HOLDER = "flow.lock", "flow.json"


@contextmanager
def only_writer(workspace: Workspace, flow_run: str) -> Iterator[None]:
    """Hold the workspace for `flow_run` (its name). `WorkspaceBusy` names who holds it already."""
    holder = workspace.root / HOLDER
    with ExitStack() as held:
        try:
            held.enter_context(locked(workspace.root / LOCK, wait=False))
        except WorkspaceBusy:
            raise WorkspaceBusy(_who(workspace, read_json(holder))) from None
        since = datetime.now(UTC).isoformat(timespec="seconds")
        who = {"run": flow_run, "host": socket.gethostname(), "pid": os.getpid()}
        write_json(holder, who | {"since": since})
        yield


def _who(workspace: Workspace, holder: dict[str, Any]) -> str:
    return (
        f"{workspace.root}: held by flow run {holder['run']!r} (process {holder['pid']} on "
        f"{holder['host']}, since {holder['since']}). Wait for it to end, then run again."
    )
