"""What every flow does around its work: read the config, take the workspace, say what happened.

A flow's function is thin: it names its steps and hands them to `operate`. A wrong config ends the run
before anything was done; a workspace that another flow writes to ends it as `Skipped`; credentials
are cleaned from everything that is logged or raised.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from prefect import get_run_logger
from prefect.client.schemas.objects import State
from prefect.runtime import flow_run
from prefect.states import Cancelled

from flows import redact
from flows.exclusive import only_writer
from flows.parameters import command_line
from pipeline.config.config import Config
from pipeline.config.load import load_config
from pipeline.errors import WorkspaceBusy
from pipeline.workspace import Workspace

Outcome = dict[str, Any] | State[Any]
"""Reports by stage, or the state in which the run ends."""
SKIPPED = "Skipped"


@dataclass(frozen=True, slots=True)
class Operation:
    """What a flow run works on."""

    command: str
    """The `any2seg` command that does the same."""
    config_path: str
    overrides: list[str]
    config: Config
    workspace: Workspace

    @property
    def resume(self) -> str:
        """The command that goes on where this run stopped."""
        return command_line(self.command, self.config_path, self.overrides)


def operate(
    command: str,
    config_path: str,
    overrides: list[str] | None,
    work: Callable[[Operation], Outcome],
    *,
    writes: bool = True,
) -> Outcome:
    """Do `work` on the config's workspace; see the module's text. Raises what `work` raises."""
    redact.install()
    with redact.scrubbed_errors():
        overrides = overrides or []
        config = load_config(config_path, overrides)
        operation = Operation(command, config_path, overrides, config, Workspace.of(config))
        if not writes:
            return work(operation)
        try:
            with only_writer(operation.workspace, str(flow_run.get_name())):
                return work(operation)
        except WorkspaceBusy as busy:
            get_run_logger().warning("%s", busy)
            return Cancelled(name=SKIPPED, message=str(busy))
