"""What is done, missing or stale of a config's run, read from the workspace alone.

Imports neither torch nor Prefect. `any2seg status` prints the rows; `any2seg run` asks for the first
incomplete one and starts a flow only if there is one.
"""

from __future__ import annotations

from collections.abc import Iterator

from flows.planning.coverage import CoverageRow, coverage_rows
from pipeline.config.config import Config
from pipeline.config.load import MAIN_ROW, rows
from pipeline.errors import DatasetError, MissingTarget
from pipeline.shards.manifest import Manifest
from pipeline.storage.files import AnyPath
from pipeline.targets.descriptions import (
    described_shards,
    description_slots,
    in_slot,
    resolve_descriptions,
)
from pipeline.workspace import Workspace
from student.runs.inputs import identify
from student.runs.run import Run, is_finished, steps_done


def status_rows(config: Config, workspace: Workspace) -> list[CoverageRow]:
    """One row per stage and split, modality, prompt set or training row."""
    manifest = load_if_prepared(config, workspace)
    return [
        *coverage_rows(config, workspace, manifest),
        *_description_rows(config, workspace, manifest),
        *_run_rows(config, workspace, manifest),
    ]


def load_if_prepared(config: Config, workspace: Workspace) -> Manifest | None:
    """The dataset's manifest; None if it is missing or cannot be read."""
    try:
        return Manifest.load(workspace.dataset(config))
    except DatasetError:
        return None


def first_missing(config: Config, workspace: Workspace) -> str | None:
    """The first incomplete row as text, or None when there is nothing to do."""
    for row in status_rows(config, workspace):
        if not row.complete:
            return f"{row.stage} {row.what}: {row.missing + row.stale} {row.unit}"
    return _outdated_teacher(config, workspace)


def report_path(config: Config, workspace: Workspace) -> AnyPath:
    """Path of the report of the config's main run, whether or not it exists."""
    return identify(config, workspace).folder / "report" / "index.html"


def _description_rows(
    config: Config, workspace: Workspace, manifest: Manifest | None
) -> Iterator[CoverageRow]:
    options = config.descriptions
    if options is None:
        return
    shards = described_shards(options, manifest) if manifest else ()
    for slot in description_slots(options, tuple(config.modalities)):
        try:
            store = resolve_descriptions(config, workspace, options, slot)
        except MissingTarget:
            yield CoverageRow("describe", slot, "shards", missing=len(shards))
            continue
        coverage = store.coverage(in_slot(shard, slot) for shard in shards)
        counts = (coverage.committed, coverage.missing, coverage.stale)
        yield CoverageRow("describe", slot, "shards", *counts, note=store.path.name)


def _run_rows(
    config: Config, workspace: Workspace, manifest: Manifest | None
) -> Iterator[CoverageRow]:
    steps = config.train.steps
    runs: dict[str, Run] = {}
    for name, row in rows(config).items():
        try:
            run = runs[name] = identify(row, workspace, manifest)
        except (DatasetError, MissingTarget):
            yield CoverageRow(
                "train", name, "steps", missing=steps, note="waits for the stages before"
            )
            continue
        done = steps_done(run)
        yield CoverageRow("train", name, "steps", committed=done, missing=steps - done, note=run.id)
    for name, row in rows(config).items():
        yield _one("evaluate", name, name in runs and _is_evaluated(row, runs[name]))
    yield _one("report", "page", MAIN_ROW in runs and _is_reported(config, workspace))


def _is_evaluated(config: Config, run: Run) -> bool:
    from student.evaluation.evaluate import current_scores

    return is_finished(run) and current_scores(run, config) is not None


def _is_reported(config: Config, workspace: Workspace) -> bool:
    from flows.report.report import report_is_current

    return report_is_current(config, workspace)


def _one(stage: str, what: str, done: bool) -> CoverageRow:
    return CoverageRow(stage, what, "files", committed=int(done), missing=int(not done))


def _outdated_teacher(config: Config, workspace: Workspace) -> str | None:
    """Message if the teacher's weights changed since the targets were computed, else None."""
    from teacher.encoding.units import outdated_modalities

    changed = outdated_modalities(config, workspace)
    return f"precompute: the teacher of {', '.join(changed)} changed" if changed else None
