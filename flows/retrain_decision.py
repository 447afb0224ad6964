"""Whether a scheduled run trains, with every reason for the decision.

Compares the config with the finished runs in the workspace. A student is retrained if none was trained
with these settings, towers and prompts, or if the manifest grew by `schedule.retrain_growth_percent`
since. A new version of the code alone is no reason: it changes a run's id, not what the student learns.

Growth is counted in samples, not in days. Only a finished run is a baseline: after a kill the reasons to
train still hold, and the training resumes from its checkpoint.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from pipeline.config.config import Config
from pipeline.config.load import rows
from pipeline.core.fingerprint import differences
from pipeline.shards.manifest import Manifest
from pipeline.storage.files import AnyPath
from pipeline.workspace import Workspace
from student.evaluation.evaluate import current_scores
from student.runs.inputs import identify
from student.runs.layout import read_record
from student.runs.run import Run, is_finished

NOT_COMPARED = ("manifest", "code")
"""Fields of a run's identity that by themselves do not make a student outdated."""

UNCHANGED = "towers, prompts and settings unchanged"


@dataclass(frozen=True, slots=True)
class Decision:
    """Whether to train, and why (or why not)."""

    run: bool
    reasons: tuple[str, ...]

    def __str__(self) -> str:
        return "; ".join(self.reasons)


def decide(config: Config, workspace: Workspace) -> Decision:
    """Decide for every row of the config; one that is due makes the run due.

    Raises `DatasetError` or `MissingTarget` before `prepare` and `precompute` are done.
    """
    manifest = Manifest.load(workspace.dataset(config))
    decisions = [_decide_row(row, workspace, manifest) for row in rows(config).values()]
    due = [decision for decision in decisions if decision.run]
    reasons = (reason for decision in due or decisions for reason in decision.reasons)
    return Decision(bool(due), tuple(dict.fromkeys(reasons)))


def _decide_row(config: Config, workspace: Workspace, manifest: Manifest) -> Decision:
    configured = identify(config, workspace, manifest)
    if is_finished(configured):
        if current_scores(configured, config) is None:
            return Decision(True, (f"{config.name}: trained, but not scored as configured",))
        return Decision(False, ("manifest unchanged", UNCHANGED))
    finished = list(_finished_runs(config.name, workspace))
    changed = [_changed(run.identity, configured.identity) for run, _ in finished]
    baselines = [n for (_, n), fields in zip(finished, changed, strict=True) if not fields]
    if baselines:
        return _by_growth(max(baselines), manifest.num_samples, config)
    if changed:
        nearest = min(changed, key=len)
        return Decision(True, (f"{config.name}: changed since it was trained: {_named(nearest)}",))
    return Decision(True, (f"{config.name}: no finished student yet",))


def _by_growth(before: int, now: int, config: Config) -> Decision:
    limit = config.schedule.retrain_growth_percent
    grown = 100.0 * (now - before) / before
    growth = f"manifest grew {grown:.1f} % ({before} to {now} samples"
    if now > before and grown >= limit:
        return Decision(True, (f"{growth}, >= {limit:g} %)",))
    return Decision(False, (f"{growth}, < {limit:g} %)", UNCHANGED))


def _finished_runs(name: str, workspace: Workspace) -> Iterator[tuple[Run, int]]:
    """Runs of this experiment that are trained and scored, with the size of their manifest."""
    if not workspace.runs.is_dir():
        return
    folders: list[AnyPath] = [*workspace.runs.iterdir()]
    for folder in folders:
        if folder.name.rpartition("-")[0] != name:
            continue
        try:
            record = read_record(folder)
        except (FileNotFoundError, ValueError):
            continue
        run = Run(str(record["run_id"]), folder, record["identity"])
        if "num_samples" in record and is_finished(run) and run.evaluation.exists():
            yield run, int(record["num_samples"])


def _changed(trained: dict[str, Any], configured: dict[str, Any]) -> list[str]:
    """Dotted fields in which the identities differ, without `NOT_COMPARED`."""
    fields = differences(trained, configured)
    return [field for field in fields if field.partition(".")[0] not in NOT_COMPARED]


def _named(fields: list[str]) -> str:
    return ", ".join("modalities" if field.startswith("modalities") else field for field in fields)
