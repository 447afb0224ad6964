"""The Prefect flow over the stages: thin tasks, one per stage, one training task per comparison row.

Completion is read from the workspace, never from Prefect: a task calls its stage, and the stage does what
is missing. Trainings run as processes of their own, side by side, so that each has its own random state
and threads.
"""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Any

from prefect import flow, get_run_logger, task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State, TaskRun
from prefect.futures import PrefectFuture
from prefect.task_runners import ThreadPoolTaskRunner
from prefect.tasks import Task

from flows import stages
from pipeline.config import load_config
from pipeline.errors import Any2SegError
from pipeline.processes import die_with_parent
from pipeline.workspace import Workspace

SIDE_BY_SIDE = 2
"""Trainings that run at a time."""


class TrainingFailed(Any2SegError):
    """A training process ended with an error; its own message was printed before."""


def _worth_retrying(_: Task[..., Any], __: TaskRun, state: State[Any]) -> bool:
    """Retry what may pass by itself (I/O); never a wrong config or a refused input."""
    return isinstance(state.result(raise_on_failure=False), OSError)


_task = {
    "cache_policy": NO_CACHE,
    "persist_result": False,
    "retries": 2,
    "retry_delay_seconds": [5, 30],
    "retry_condition_fn": _worth_retrying,
}


@task(name="stage", task_run_name="{stage}-{row}", **_task)  # type: ignore[call-overload, untyped-decorator, unused-ignore]
def run_stage(stage: str, config_path: str, overrides: list[str], row: str) -> dict[str, Any]:
    """Run one stage of one row in this process; returns the stage's report as JSON."""
    config = stages.rows(load_config(config_path, overrides))[row]
    report = stages.STAGES[stage](config, Workspace.of(config))
    get_run_logger().info("%s", report)
    return report.as_json()


@task(name="train", task_run_name="train-{row}", **_task)  # type: ignore[call-overload, untyped-decorator, unused-ignore]
def run_training(config_path: str, overrides: list[str], row: str, num_rows: int) -> None:
    """Train one row in a process of its own. Raises `TrainingFailed`."""
    command = [sys.executable, "-m", "flows.cli", "train", config_path, "--row", row]
    for override in overrides:
        command += ["--set", override]
    share = max(1, (os.cpu_count() or 1) // min(num_rows, SIDE_BY_SIDE))
    environment = {"OMP_NUM_THREADS": str(share), **os.environ}
    code = subprocess.run(
        command, env=environment, check=False, preexec_fn=die_with_parent
    ).returncode
    if code:
        raise TrainingFailed(
            f"row {row}: the training process ended with code {code}. "
            f"Run `any2seg train {config_path} --row {row}` to see it alone and to go on from its "
            "last checkpoint."
        )


_side_by_side: Any = ThreadPoolTaskRunner(max_workers=SIDE_BY_SIDE)


@flow(name="any2seg", task_runner=_side_by_side)
def any2seg(config_path: str, overrides: list[str] | None = None) -> dict[str, Any]:
    """Run every stage that a config needs; what is already in the workspace is not made again.

    Args:
        config_path: the TOML file.
        overrides: dotted overrides, e.g. `train.steps=100`.
    """
    overrides = overrides or []
    config = load_config(config_path, overrides)
    rows = list(stages.rows(config))
    reports: dict[str, Any] = {}
    for stage in ("prepare", "precompute", *(["describe"] if config.descriptions else [])):
        reports[stage] = run_stage(stage, config_path, overrides, stages.MAIN_ROW)
    trainings: list[PrefectFuture[None]] = [
        run_training.submit(config_path, overrides, row, len(rows)) for row in rows
    ]
    for training in trainings:
        training.result()
    evaluations = {r: run_stage.submit("evaluate", config_path, overrides, r) for r in rows}
    reports["evaluate"] = {row: future.result() for row, future in evaluations.items()}
    reports["report"] = run_stage("report", config_path, overrides, stages.MAIN_ROW)
    return reports
