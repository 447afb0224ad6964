"""One writing flow per workspace: a lease that says which flow run holds it.

A second flow does not wait and does not fail: it ends as `Skipped` and names the holder. On disk the
lease dies with its process; in an object store it is taken over once its holder is silent for the
lease's time to live. So a killed flow never blocks the next one for long.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from pipeline.errors import WorkspaceBusy
from pipeline.storage.files import read_json, write_json
from pipeline.storage.lease import lease
from pipeline.workspace import Workspace

LEASE, HOLDER = "flow.lock", "flow.json"


@contextmanager
def only_writer(workspace: Workspace, flow_run: str) -> Iterator[None]:
    """Hold the workspace for `flow_run` (its name). `WorkspaceBusy` names who holds it already."""
    holder = workspace.root / HOLDER
    with ExitStack() as held:
        try:
            held.enter_context(lease(workspace.root / LEASE, wait=False))
        except WorkspaceBusy as busy:
            name = read_json(holder)["flow_run"] if holder.exists() else "just starting"
            raise WorkspaceBusy(f"flow run {name!r} holds the workspace. {busy}") from None
        write_json(holder, {"flow_run": flow_run})
        yield
