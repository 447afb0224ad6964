"""Steps that the flows share: compute missing targets, train the students, score them, report.

Each calls its tasks in order and raises `StageFailed` naming stage, unit, cause and the command that
resumes; finished units stay. `require_targets` raises `MissingTarget`.
"""

from __future__ import annotations

from typing import Any

from prefect.client.schemas.objects import State
from prefect.futures import PrefectFuture
from prefect.states import Completed

from flows.artifacts import PassProgress, show_coverage, show_predictions, show_scores
from flows.flow_context import Operation
from flows.retrain_decision import Decision
from flows.tasks import encode_range, run_stage, run_training
from pipeline.config.load import MAIN_ROW, rows
from pipeline.core.retryable import StageFailed
from pipeline.core.splits import TRAIN_SPLIT
from pipeline.errors import MissingTarget
from pipeline.shards.manifest import Manifest
from pipeline.targets.prompts import resolve_prompts
from pipeline.targets.reader import CachedTeacher
from student.runs.run import reads_prompts, reads_targets
from teacher.encoding.child_process import EncodingProcess
from teacher.encoding.units import plan_towers, plan_units, split_units

MIN_RANGES, UNITS_PER_RANGE, MAX_RANGES = 8, 64, 100

Reports = dict[str, Any]
"""Stage to its report as JSON; for a stage of every row, row to report."""


def teach(operation: Operation) -> Reports:
    """Bring shards, teacher targets and (if configured) descriptions up to date.

    Raises `CheckpointError` or `ConfigError` before anything is prepared if no tower can embed a modality,
    or if the weights of one are not to be had.
    """
    plan_towers(operation.config, operation.workspace)
    reports = {"prepare": _stage(operation, "prepare"), "prompts": _stage(operation, "prompts")}
    reports["precompute"] = encode(operation)
    if operation.config.descriptions:
        reports["describe"] = _stage(operation, "describe")
    return reports


def encode(operation: Operation) -> dict[str, Any]:
    """Encode missing units, range by range; returns the counts of all ranges.

    Units that cannot be read are raised at the end, so that they do not stop the others; a fault that
    persists after its retries (storage, weights) ends the pass at once.
    """
    config, workspace = operation.config, operation.workspace
    if config.scale.spread:
        report = _stage(operation, "precompute")
        show_coverage(config, workspace)
        return report
    shards = Manifest.load(workspace.dataset(config)).all_shards
    plans = plan_towers(config, workspace)
    for plan in plans:
        plan.create_stores(config, workspace)
    units = plan_units(plans, shards)
    progress = PassProgress(config, len(shards), units)
    reports = []
    with EncodingProcess(config) as process:
        for part in split_units(units, num_ranges(len(units))):
            name = "..".join(f"{unit.shard}-{unit.label}" for unit in (part[0], part[-1]))
            state = encode_range(process, part, name, return_state=True)
            report = finished(operation, "precompute", name, state)
            failed = {failure["unit"] for failure in report["failed"]}
            progress.done([unit for unit in part if str(unit) not in failed])
            reports.append(report)
    show_coverage(config, workspace)
    failures = [failure for report in reports for failure in report["failed"]]
    if failures:
        cause = f"{failures[0]['reason']} ({len(failures)} of {len(units)} units failed)"
        raise StageFailed("precompute", failures[0]["unit"], cause, operation.resume)
    return {"done": sum(r["done"] for r in reports), "ranges": len(reports), "units": len(units)}


def num_ranges(num_units: int) -> int:
    """Number of ranges (tasks): enough for progress and retries, few enough for little overhead."""
    return max(1, min(num_units, MIN_RANGES), min(num_units // UNITS_PER_RANGE, MAX_RANGES))


def nothing_to_do(decision: Decision, reports: Reports) -> State[Any]:
    """The state of a scheduled run that found no reason to train."""
    num_new = sum(report["done"] for report in reports.values())
    outcome = f"{num_new} units prepared or embedded; student kept" if num_new else "Nothing to do"
    name = "Student kept" if num_new else "Nothing to do"
    return Completed(name=name, message=f"{outcome}: {decision}")


def require_targets(operation: Operation) -> None:
    """Raise `MissingTarget` unless the workspace has every target that a row of the config reads."""
    manifest = Manifest.load(operation.workspace.dataset(operation.config))
    for row in rows(operation.config).values():
        outputs = reads_targets(row)
        if outputs:
            teacher = CachedTeacher.open(row, operation.workspace, outputs)
            teacher.require_complete(manifest.shards(TRAIN_SPLIT))


def embed_prompts(operation: Operation) -> Reports:
    """Embed missing class prompts; the text tower is loaded only if there are any."""
    config = operation.config
    if any(map(reads_prompts, rows(config).values())):
        try:
            resolve_prompts(config, operation.workspace)
        except MissingTarget:
            return {"prompts": _stage(operation, "prompts")}
    return {}


def study(operation: Operation) -> Reports:
    """Train every row that is not finished, side by side, then score and report."""
    names = list(rows(operation.config))
    # By path: a training is a process of its own, which reads the file itself.
    where = (operation.config_path, operation.overrides)
    trainings = {name: run_training.submit(*where, name, len(names)) for name in names}
    _all_of(operation, "train", trainings)
    return score(operation)


def score(operation: Operation) -> Reports:
    """Score every row where it is not scored yet, then write the report."""
    scorings = {
        name: run_stage.submit("evaluate", name, row)
        for name, row in rows(operation.config).items()
    }
    reports = {"evaluate": _all_of(operation, "evaluate", scorings)}
    reports["report"] = _stage(operation, "report")
    show_scores(operation.config, operation.workspace)
    show_predictions(operation.config, operation.workspace)
    return reports


def _stage(operation: Operation, stage: str) -> dict[str, Any]:
    state = run_stage(stage, MAIN_ROW, operation.config, return_state=True)
    report: dict[str, Any] = finished(operation, stage, MAIN_ROW, state)
    return report


def _all_of(
    operation: Operation, stage: str, futures: dict[str, PrefectFuture[Any]]
) -> dict[str, Any]:
    """Results by row. Waits for all of them before it raises the first failure."""
    for future in futures.values():
        future.wait()
    return {row: finished(operation, stage, row, future.state) for row, future in futures.items()}


def finished(operation: Operation, stage: str, unit: str, state: State[Any]) -> Any:
    """What a task returned; `StageFailed` if it failed."""
    result = state.result(raise_on_failure=False)
    if state.is_completed():
        return result
    error = result if isinstance(result, BaseException) else None
    cause = str(error or state.message)
    raise StageFailed(stage, unit, cause, operation.resume) from error
