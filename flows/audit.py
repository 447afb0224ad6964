"""The flow `audit`: are the cached numbers still what the towers say, and is every record right?

Computes a random share of the cached rows again and examines the workspace; both results are tables in
the UI. Drift beyond the tolerance and damage fail the run by name; work that was only begun does not.
Takes the workspace like a writer does, since the work in flight of another flow would look like damage.
"""

from __future__ import annotations

from typing import Annotated, Any
from uuid import UUID

from prefect import flow, get_run_logger, task
from prefect.artifacts import create_table_artifact
from prefect.runtime import flow_run
from pydantic import Field

from flows import redact
from flows.artifacts import artifact_key
from flows.flow_context import Operation, Outcome, operate
from flows.integrity.finding import Kind
from flows.options import FLOW
from flows.parameters import ConfigPath, Overrides
from flows.steps import finished
from flows.tasks import TASK
from pipeline.config.load import load_config
from pipeline.core.progress import progress_lines_to
from pipeline.errors import CorruptTarget
from pipeline.workspace import Workspace

UNFINISHED = {Kind.HOLE, Kind.PARTIAL, Kind.SHARD_LEFTOVER, Kind.CHECKPOINT_NEWER}
"""Findings that a killed run leaves and the next one clears."""


@flow(name="audit", **FLOW)
def audit(
    config_path: ConfigPath,
    overrides: Overrides | None = None,
    share: Annotated[float, Field(gt=0.0, le=1.0)] = 0.001,
    deep: bool = False,
) -> Outcome:
    """Compute a random share of the cached embeddings again, and examine every record.

    Args:
        config_path: The TOML file, as seen from the machine that runs the flow.
        overrides: Dotted overrides of the file, e.g. `teacher.device=cpu`. Never a credential.
        share: Share of the cached rows that is computed again; at least 8 rows a modality. Every run
            draws other rows; the audit's record in the workspace names the seed.
        deep: Read every byte of shards and stores and compare it with its digest.
    """

    def work(operation: Operation) -> Outcome:
        where = (operation.config_path, operation.overrides)
        seed = UUID(str(flow_run.get_id())).int % 2**31
        states = {
            "examine": examine(*where, deep, return_state=True),
            "recompute": recompute(*where, share, seed, return_state=True),
        }
        return {name: finished(operation, "audit", name, s) for name, s in states.items()}

    return operate("audit", config_path, overrides, work)


@task(name="examine", **TASK)
def examine(config_path: str, overrides: list[str], deep: bool) -> dict[str, Any]:
    """`verify`, as a table. `CorruptTarget` names the first damage."""
    from flows.integrity.verify import verify

    log = get_run_logger()
    with redact.scrubbed_errors(), progress_lines_to(log.info):
        config = load_config(config_path, overrides)
        found = verify(config, Workspace.of(config), deep=deep)
        table = [
            {"kind": str(f.kind), "place": str(f.place), "problem": f.problem, "remedy": f.remedy}
            for f in found.findings
        ]
        key = artifact_key(config, "findings")
        create_table_artifact(table=table, key=key, description=f"Examined: {found.examined}")
        damage = [finding for finding in found.findings if finding.kind not in UNFINISHED]
        if damage:
            raise CorruptTarget(
                f"{damage[0].place}: {damage[0].problem} ({len(damage)} findings in all). "
                f"{damage[0].remedy}"
            )
        return {"findings": len(table), **found.examined}


@task(name="recompute", **TASK)
def recompute(config_path: str, overrides: list[str], share: float, seed: int) -> dict[str, Any]:
    """`audit`, as a table. `CorruptTarget` names the first sample that drifted."""
    from flows.integrity.audit import audit as compute

    log = get_run_logger()
    with redact.scrubbed_errors(), progress_lines_to(log.info):
        config = load_config(config_path, overrides)
        report = compute(config, Workspace.of(config), share=share, seed=seed)
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
                    f"{alarm.key}: {row.modality} {row.output}: computed again, 1 - cosine is "
                    f"{1 - alarm.cosine:.2g}, tolerance {report.tolerance:.2g}. Record: {report.record}"
                )
        return {"rows": sum(row.num_rows for row in report.rows), "record": report.record}
