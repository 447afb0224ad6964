"""Notifies people of a flow that failed or crashed, through a Prefect notification block.

The config names the block (`notify.block = "slack-webhook/any2seg"`); its address and secrets stay in
Prefect. The message names stage, unit, cause and the command that resumes. A block that is missing or
does not deliver is logged by name and never hides the failure itself.
"""

from __future__ import annotations

import inspect
from typing import Any

from prefect.blocks.abstract import NotificationBlock
from prefect.blocks.core import Block
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import (
    FlowRunFilter,
    FlowRunFilterId,
    TaskRunFilter,
    TaskRunFilterState,
    TaskRunFilterStateType,
)
from prefect.client.schemas.objects import FlowRun, State, StateType
from prefect.flows import Flow
from prefect.logging import get_logger
from prefect.utilities.asyncutils import run_coro_as_sync

from flows import redact
from flows.parameters import command_line
from pipeline.config.load import load_config
from pipeline.core.retryable import StageFailed
from pipeline.errors import Any2SegError


def notify(flow: Flow[..., Any], flow_run: FlowRun, state: State[Any]) -> None:
    """Hook for `on_failure` and `on_crashed`: send the message, if the config names a block."""
    redact.install()
    log = get_logger("flow_runs")
    try:
        # Prefect hands a hook nothing but the run, and a crash's hook runs in another process.
        block = load_config(*_where(flow_run)).notify.block
    except Any2SegError as error:
        log.warning("no notification can be sent: %s", error)
        return
    if not block:
        return
    try:
        sender = Block.load(block)
        if not isinstance(sender, NotificationBlock):
            log.error("notify.block = %r: expected a notification block", block)
            return
        with sender.raise_on_failure():
            _send(sender, message(flow.name, flow_run, state), subject(flow.name, state))
    except Exception as error:
        # Only its name: the text may hold the block's address, which is a secret.
        log.error(  # noqa: TRY400
            "notification through %r failed (%s). `prefect block inspect %s` shows the block.",
            *(block, type(error).__name__, block),
        )


def _send(sender: NotificationBlock, body: str, line: str) -> None:
    """Prefect's own blocks send at once when called outside an event loop; others may be coroutines."""
    sent: Any = sender.notify(body, subject=line)
    if inspect.iscoroutine(sent):
        run_coro_as_sync(sent)


def subject(flow_name: str, state: State[Any]) -> str:
    """One line."""
    return f"Any2Seg: {flow_name} {state.name.lower() if state.name else 'failed'}"


def message(flow_name: str, flow_run: FlowRun, state: State[Any]) -> str:
    """Stage, unit, cause, and the command that resumes."""
    error = state.result(raise_on_failure=False)
    resume = command_line(flow_name, *_where(flow_run))
    if isinstance(error, StageFailed):
        stage, unit, cause = error.stage, error.unit, error.cause
    else:
        stage, _, unit = _running_task(flow_run).partition("-")
        cause = str(error) if isinstance(error, Exception) else str(state.message)
    return redact.redacted(
        f"Flow run {flow_run.name!r} of {flow_name} ended as {state.name}.\n"
        f"Stage: {stage}\nUnit: {unit or '-'}\nCause: {cause}\nResume: {resume}"
    )


def _where(flow_run: FlowRun) -> tuple[str, list[str]]:
    """Config path and overrides of a run."""
    given = flow_run.parameters
    return str(given.get("config_path", "")), list(given.get("overrides") or [])


def _running_task(flow_run: FlowRun) -> str:
    """Name of the task that a crashed run left running, `<stage>-<unit>`."""
    running = TaskRunFilter(
        state=TaskRunFilterState(type=TaskRunFilterStateType(any_=[StateType.RUNNING]))
    )
    with get_client(sync_client=True) as client:
        task_runs = client.read_task_runs(
            flow_run_filter=FlowRunFilter(id=FlowRunFilterId(any_=[flow_run.id])),
            task_run_filter=running,
        )
    return task_runs[0].name if task_runs else "before the first stage"
