"""The Prefect tasks: a stage in this process; a range of the teacher pass or a training in a child.

A task calls its stage, and the stage does what is missing; the task adds retries, logs and a clean
error. Only transient faults are retried (see `pipeline.core.retryable`), with exponential backoff.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from prefect import get_run_logger, task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State, TaskRun
from prefect.tasks import Task, exponential_backoff

from flows import redact, stages
from pipeline.config.load import load_config, rows
from pipeline.core.child import death_text, run_module
from pipeline.core.progress import progress_lines_to
from pipeline.core.retryable import TRY_AGAIN, ProcessFailed, TryAgain, worth_retrying
from pipeline.workspace import Workspace
from teacher.encoding.child_process import EncodingProcess
from teacher.encoding.units import Unit

SIDE_BY_SIDE = 2
"""Trainings that run at a time."""


def _is_transient(_: Task[..., Any], __: TaskRun, state: State[Any]) -> bool:
    return worth_retrying(state.result(raise_on_failure=False))


TASK: dict[str, Any] = {
    "cache_policy": NO_CACHE,
    "persist_result": False,
    "retries": 3,
    "retry_delay_seconds": exponential_backoff(5),
    "retry_jitter_factor": 0.5,
    "retry_condition_fn": _is_transient,
}
"""Options of every task."""


@task(name="stage", task_run_name="{stage}-{row}", **TASK)
def run_stage(stage: str, config_path: str, overrides: list[str], row: str) -> dict[str, Any]:
    """Run one stage of one row in this process; returns the stage's report as JSON."""
    log = get_run_logger()
    with redact.scrubbed_errors(), progress_lines_to(log.info):
        config = rows(load_config(config_path, overrides))[row]
        report = stages.STAGES[stage](config, Workspace.of(config))
        log.info("%s", report)
        return report.as_json()


@task(name="train", task_run_name="train-{row}", **TASK)
def run_training(config_path: str, overrides: list[str], row: str, num_rows: int) -> None:
    """Train one row in a process of its own. Raises `ProcessFailed`, or `TryAgain`."""
    words = ["train", config_path, "--row", row]
    for override in overrides:
        words += ["--set", override]
    share = max(1, (os.cpu_count() or 1) // min(num_rows, SIDE_BY_SIDE))
    with redact.scrubbed_errors():
        run_command(words, {"OMP_NUM_THREADS": str(share)}, get_run_logger().info)


@task(name="precompute", task_run_name="precompute-{name}", **TASK)
def encode_range(process: EncodingProcess, units: list[Unit], name: str) -> dict[str, Any]:
    """Encode one range of units in the flow's encoding process; returns the report as JSON."""
    log = get_run_logger()
    with redact.scrubbed_errors():
        report = process.encode(units, log.info)
        log.info("%s: %s", name, report)
        return report.as_json()


def run_command(words: list[str], environment: dict[str, str], log: Callable[[str], None]) -> None:
    """Run `any2seg WORDS` and hand every line that it prints to `log`.

    `environment` holds defaults. Raises `TryAgain` if it was killed or if its exit code says that the
    fault may be transient, else `ProcessFailed`; the message is the last line of its output.
    """
    ended = run_module("flows.cli.main", words, environment={**environment, **os.environ}, log=log)
    if not ended.code:
        return
    died = death_text(
        f"`any2seg {words[0]}`",
        ended,
        "in the flow's log",
        "It resumes from what it had committed.",
    )
    if ended.killed:
        raise TryAgain(died)
    kind = TryAgain if ended.code == TRY_AGAIN else ProcessFailed
    raise kind(ended.error_text or died)
