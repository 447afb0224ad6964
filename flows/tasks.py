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
from prefect.artifacts import create_table_artifact
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State, TaskRun
from prefect.tasks import Task, exponential_backoff

from flows import redact
from flows.artifacts import artifact_key
from flows.integrity.finding import Kind
from flows.stages import load_stage
from pipeline.config.config import Config
from pipeline.core.progress import progress_lines_to
from pipeline.core.retryable import KILLED, TRY_AGAIN, ProcessFailed, TryAgain, worth_retrying
from pipeline.core.system import die_with_parent
from pipeline.errors import CorruptTarget
from pipeline.workspace import Workspace
from teacher.encoding.child_process import EncodingProcess
from teacher.encoding.units import Unit

SIDE_BY_SIDE = 2
"""Trainings that run at a time."""
MAX_ERROR_LINES = 20
"""Last lines of a failed process that its error repeats at most."""
UNFINISHED = {Kind.HOLE, Kind.PARTIAL, Kind.SHARD_LEFTOVER, Kind.CHECKPOINT_NEWER}
"""Findings that a killed run leaves and the next one clears; no reason to fail an audit."""


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
    """`any2seg verify`, as a table artifact. `CorruptTarget` names the first finding that is no hole."""
    from flows.integrity.verify import verify

    log = get_run_logger()
    with redact.scrubbed_errors(), progress_lines_to(log.info):
        verification = verify(config, Workspace.of(config), deep=deep)
        table = [
            {"kind": str(f.kind), "place": str(f.place), "problem": f.problem, "remedy": f.remedy}
            for f in verification.findings
        ]
        key = artifact_key(config, "findings")
        note = f"Examined: {verification.examined}"
        create_table_artifact(table=table, key=key, description=note)
        corrupt = [finding for finding in verification.findings if finding.kind not in UNFINISHED]
        if corrupt:
            raise CorruptTarget(
                f"{corrupt[0].place}: {corrupt[0].problem} ({len(corrupt)} findings in all). "
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
    else `ProcessFailed` with the last lines of its output.
    """
    process = subprocess.Popen(
        [sys.executable, "-m", "flows.cli", *words],
        env={**environment, **os.environ},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        preexec_fn=die_with_parent,
    )
    assert process.stdout is not None
    last: deque[str] = deque(maxlen=MAX_ERROR_LINES)
    with process.stdout as lines:
        for line in lines:
            last.append(line.rstrip())
            log(last[-1])
    code = process.wait()
    if code in KILLED:
        raise TryAgain(
            f"`any2seg {words[0]}` was killed (exit code {code}), most likely out of memory. "
            "It resumes from what it had committed."
        )
    if code:
        kind = TryAgain if code == TRY_AGAIN else ProcessFailed
        raise kind(_cause(last) or f"`any2seg {words[0]}` ended with exit code {code}")


def _cause(last: deque[str]) -> str:
    """The error line of a process and what follows it; without one, its last line."""
    lines = list(last)
    for index in range(len(lines) - 1, -1, -1):
        if lines[index].startswith("error: "):
            return "\n".join(lines[index:]).removeprefix("error: ")
    return lines[-1] if lines else ""
