"""The Prefect tasks: a stage in this process; a range of the teacher pass or a training in a child.

A task calls its stage, and the stage does what is missing; the task adds retries, logs and a clean
error. Only transient faults are retried (see `pipeline.core.retryable`), with exponential backoff.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from prefect import get_run_logger, task
from prefect.artifacts import create_table_artifact
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State, TaskRun
from prefect.tasks import Task, exponential_backoff

from flows import redact
from flows.artifacts import artifact_key
from flows.integrity.finding import Kind
from flows.stages import load_stage
from pipeline.config.config import Config
from pipeline.core.child import death_text, run_module
from pipeline.core.progress import progress_lines_to
from pipeline.core.retryable import TRY_AGAIN, ProcessFailed, TryAgain, worth_retrying
from pipeline.errors import CorruptTarget
from pipeline.workspace import Workspace
from teacher.encoding.child_process import EncodingProcess
from teacher.encoding.units import Unit

SIDE_BY_SIDE = 2
"""Trainings that run at the same time."""
UNFINISHED = {Kind.HOLE, Kind.PARTIAL, Kind.SHARD_LEFTOVER, Kind.CHECKPOINT_NEWER}
"""Findings that a killed run leaves and the next one resolves; they do not fail an audit."""


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
def run_stage(stage: str, row: str, config: Config) -> dict[str, Any]:
    """Run one stage in this process; returns its report as JSON. `config` is that of the row."""
    log = get_run_logger()
    with redact.scrubbed_errors(), progress_lines_to(log.info):
        report = load_stage(stage)(config, Workspace.of(config))
        log.info("%s", report)
        return report.as_json()


@task(name="train", task_run_name="train-{row}", **TASK)
def run_training(config_path: str, overrides: list[str], row: str, num_rows: int) -> None:
    """Train one row in a process of its own. Raises `ProcessFailed`, or `TryAgain`."""
    words = ["train", config_path, "--row", row]
    for override in overrides:
        words += ["--set", override]
    num_threads = max(1, (os.cpu_count() or 1) // min(num_rows, SIDE_BY_SIDE))
    with redact.scrubbed_errors():
        run_command(words, {"OMP_NUM_THREADS": str(num_threads)}, get_run_logger().info)


@task(name="precompute", task_run_name="precompute-{name}", **TASK)
def encode_range(process: EncodingProcess, units: list[Unit], name: str) -> dict[str, Any]:
    """Encode one range of units in the flow's encoding process; returns the report as JSON."""
    log = get_run_logger()
    with redact.scrubbed_errors():
        report = process.encode(units, log.info)
        log.info("%s: %s", name, report)
        return report.as_json()


@task(name="examine", **TASK)
def examine(config: Config, deep: bool) -> dict[str, Any]:
    """`any2seg verify`, as a table artifact. `CorruptTarget` names the first not in `UNFINISHED`."""
    from flows.integrity.verify import verify

    log = get_run_logger()
    with redact.scrubbed_errors(), progress_lines_to(log.info):
        verification = verify(config, Workspace.of(config), deep=deep)
        table = [
            {"kind": str(f.kind), "place": f.location, "problem": f.problem, "remedy": f.remedy}
            for f in verification.findings
        ]
        key = artifact_key(config, "findings")
        note = f"Examined: {verification.examined}"
        create_table_artifact(table=table, key=key, description=note)
        corrupt = [finding for finding in verification.findings if finding.kind not in UNFINISHED]
        if corrupt:
            raise CorruptTarget(
                f"{corrupt[0].location}: {corrupt[0].problem} ({len(corrupt)} findings in all). "
                f"{corrupt[0].remedy}"
            )
        return {"findings": len(table), **verification.examined}


@task(name="recompute", **TASK)
def recompute(config: Config, share: float, seed: int) -> dict[str, Any]:
    """`any2seg audit`, as a table artifact. `CorruptTarget` names the first sample that drifted."""
    from flows.integrity.audit import audit

    log = get_run_logger()
    with redact.scrubbed_errors(), progress_lines_to(log.info):
        report = audit(config, Workspace.of(config), share=share, seed=seed)
        table = [
            {
                "modality": row.modality,
                "output": row.output,
                "rows": row.num_rows,
                "worst 1 - cosine": f"{1 - row.cosine_min:.2g}",
                "largest difference": f"{row.max_abs:.2g}",
                "alarms": row.num_alarms,
            }
            for row in report.rows
        ]
        note = f"Tolerance {report.tolerance:.2g}, seed {seed}"
        create_table_artifact(table=table, key=artifact_key(config, "drift"), description=note)
        for row in report.rows:
            for alarm in row.alarms:
                raise CorruptTarget(
                    f"{alarm.key}: {row.modality} {row.output}: recomputed, 1 - cosine is "
                    f"{1 - alarm.cosine:.2g}, tolerance {report.tolerance:.2g}. Record: {report.record}"
                )
        return {"rows": sum(row.num_rows for row in report.rows), "record": report.record}


def run_command(words: list[str], environment: dict[str, str], log: Callable[[str], None]) -> None:
    """Run `any2seg WORDS` and hand every line that it prints to `log`.

    `environment` holds defaults. Raises `TryAgain` if the process was killed or exits with `TRY_AGAIN`,
    else `ProcessFailed`; the message is the last line of its output.
    """
    ended = run_module("flows.cli", words, environment={**environment, **os.environ}, log=log)
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
