"""The Prefect tasks: a stage in this process, a range of the teacher pass or a training in another.

A task calls its stage, and the stage does what is missing; the task adds retries, logs and a clean
error. Retries are for faults that may pass (see `pipeline.core.retryable`), with exponential backoff.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections import deque
from collections.abc import Callable
from typing import Any

from prefect import get_run_logger, task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State, TaskRun
from prefect.tasks import Task, exponential_backoff

from flows import redact, stages
from pipeline.config.load import load_config, rows
from pipeline.core.progress import progress_lines_to
from pipeline.core.retryable import KILLED, TRY_AGAIN, ProcessFailed, TryAgain, worth_retrying
from pipeline.core.system import die_with_parent
from pipeline.workspace import Workspace
from teacher.encoding.child_process import EncodingProcess
from teacher.encoding.units import Unit

SIDE_BY_SIDE = 2
"""Trainings that run at a time."""
LAST_WORDS = 20
"""Lines of a failed process that its error repeats at most."""


def _may_pass(_: Task[..., Any], __: TaskRun, state: State[Any]) -> bool:
    return worth_retrying(state.result(raise_on_failure=False))


TASK: dict[str, Any] = {
    "cache_policy": NO_CACHE,
    "persist_result": False,
    "retries": 3,
    "retry_delay_seconds": exponential_backoff(5),
    "retry_jitter_factor": 0.5,
    "retry_condition_fn": _may_pass,
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

    `environment` holds defaults. Raises `TryAgain` if it was killed or says that its fault may pass,
    else `ProcessFailed` with its last words.
    """
    process = subprocess.Popen(
        [sys.executable, "-m", "flows.cli.main", *words],
        env={**environment, **os.environ},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        preexec_fn=die_with_parent,
    )
    assert process.stdout is not None
    last: deque[str] = deque(maxlen=LAST_WORDS)
    with process.stdout as lines:
        for line in lines:
            last.append(line.rstrip())
            log(last[-1])
    code = process.wait()
    if code in KILLED:
        raise TryAgain(
            f"`any2seg {words[0]}` was killed (exit code {code}), most often for want of memory. "
            "It goes on from what it had committed."
        )
    if code:
        kind = TryAgain if code == TRY_AGAIN else ProcessFailed
        raise kind(_cause(last) or f"`any2seg {words[0]}` ended with exit code {code}")


def _cause(last: deque[str]) -> str:
    """The error line of a process and what follows it; without one, its last line."""
    lines = list(last)
    for place in range(len(lines) - 1, -1, -1):
        if lines[place].startswith("error: "):
            return "\n".join(lines[place:]).removeprefix("error: ")
    return lines[-1] if lines else ""
