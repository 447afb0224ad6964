"""What every flow does around its work: read the config, hold the workspace, report the outcome.

A flow's function is thin: it passes its steps to `operate`. An invalid config ends the run before anything
is done; credentials are removed from everything that is logged or raised.

One flow at a time writes to a workspace: it holds a lease, and a file beside it names the flow run. A second
flow neither waits nor fails: it ends as `Skipped` and names the holder. On disk the lease ends with its
process; in an object store another process takes it over when it was not renewed for its time to live. So a
killed flow does not block the next one for long.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

from prefect import get_run_logger
from prefect.client.schemas.objects import State
from prefect.runtime import flow_run
from prefect.states import Cancelled

from flows import redact
from flows.parameters import command_line
from pipeline.config.config import Config
from pipeline.config.load import load_config
from pipeline.errors import WorkspaceBusy
from pipeline.storage.files import read_json, write_json
from pipeline.storage.lease import lease
from pipeline.workspace import Workspace

Outcome = dict[str, Any] | State[Any]
"""Reports by stage, or the state in which the run ends."""
SKIPPED = "Skipped"
LEASE, HOLDER = "flow.lock", "flow.json"


@dataclass(frozen=True, slots=True)
class Operation:
    """What a flow run works on."""

    flow_name: str
    config_path: str
    overrides: list[str]
    config: Config
    workspace: Workspace

    @property
    def resume(self) -> str:
        """The command that resumes where this run stopped."""
        return command_line(self.flow_name, self.config_path, self.overrides)


def operate(
    config_path: str, overrides: list[str] | None, work: Callable[[Operation], Outcome]
) -> Outcome:
    """Do `work` on the config's workspace; see the module's text. Raises what `work` raises."""
    redact.install()
    with redact.scrubbed_errors():
        overrides = overrides or []
        # The one read of the file in a flow run: Prefect stores the parameters, so they are path and
        # text, and a served run or a retry starts from them in a process that has nothing else.
        config = load_config(config_path, overrides)
        name = str(flow_run.get_flow_name())
        operation = Operation(name, config_path, overrides, config, Workspace.of(config))
        try:
            with only_writer(operation.workspace, str(flow_run.get_name())):
                return work(operation)
        except WorkspaceBusy as busy:
            get_run_logger().warning("%s", busy)
            return Cancelled(name=SKIPPED, message=str(busy))


@contextmanager
def only_writer(workspace: Workspace, run_name: str) -> Iterator[None]:
    """Hold the workspace for the flow run of that name. `WorkspaceBusy` names the present holder."""
    holder = workspace.root / HOLDER
    with ExitStack() as stack:
        try:
            stack.enter_context(lease(workspace.root / LEASE, wait=False))
        except WorkspaceBusy as busy:
            name = read_json(holder)["flow_run"] if holder.exists() else "just starting"
            raise WorkspaceBusy(f"flow run {name!r} holds the workspace. {busy}") from None
        write_json(holder, {"flow_run": run_name})
        yield
