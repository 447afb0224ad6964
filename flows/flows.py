"""The five flows: `any2seg` (everything), `refresh-teacher`, `retrain`, `evaluate` and `audit`.

Prefect names a flow after its function, with `-` for `_`; `flows.parameters.COMMANDS` lists the names.
What is finished is read from the workspace, never from Prefect: existing artefacts are not recomputed,
whichever run computed them. Every flow writes, so it holds the workspace while it runs (`flow_context`).
"""

from __future__ import annotations

from typing import Annotated, Any
from uuid import UUID

from prefect import flow
from prefect.runtime import flow_run
from prefect.task_runners import ThreadPoolTaskRunner
from pydantic import Field

from flows.flow_context import Operation, Outcome, operate
from flows.notify import notify
from flows.parameters import ConfigPath, Overrides
from flows.retrain_decision import decide
from flows.steps import (
    embed_prompts,
    finished,
    nothing_to_do,
    require_targets,
    score,
    study,
    teach,
)
from flows.tasks import SIDE_BY_SIDE, examine, recompute
from student.runs.preflight import check_before_run

FLOW: dict[str, Any] = {
    "task_runner": ThreadPoolTaskRunner(max_workers=SIDE_BY_SIDE),
    "persist_result": False,
    "on_failure": [notify],
    "on_crashed": [notify],
}
"""Options of every flow."""


@flow(**FLOW)
def any2seg(
    config_path: ConfigPath, overrides: Overrides | None = None, when_due: bool = False
) -> Outcome:
    """Run every stage that a config needs; what the workspace already has is not recomputed.

    Args:
        config_path: The TOML file, as seen from the machine that runs the flow.
        overrides: Dotted overrides of the file, e.g. `train.steps=100`. Never a credential.
        when_due: Train only if the config's `[schedule]` calls for it (the manifest grew enough, or
            towers, prompts or settings changed). New data are always prepared and embedded.
    """

    def work(operation: Operation) -> Outcome:
        check_before_run(operation.config, operation.workspace)
        reports = teach(operation)
        if when_due:
            decision = decide(operation.config, operation.workspace)
            if not decision.run:
                return nothing_to_do(decision, reports)
        return reports | study(operation)

    return operate(config_path, overrides, work)


@flow(**FLOW)
def refresh_teacher(config_path: ConfigPath, overrides: Overrides | None = None) -> Outcome:
    """Prepare new source data and embed what has no embeddings yet. Trains nothing.

    Args:
        config_path: The TOML file, as seen from the machine that runs the flow.
        overrides: Dotted overrides of the file, e.g. `teacher.batch_size=16`. Never a credential.
    """
    return operate(config_path, overrides, teach)


@flow(**FLOW)
def retrain(config_path: ConfigPath, overrides: Overrides | None = None) -> Outcome:
    """Train, score and report students from the cached targets; no vision tower is loaded.

    New class prompts are embedded by the text tower, once. Missing targets end the run with
    `MissingTarget` before anything is trained.

    Args:
        config_path: The TOML file, as seen from the machine that runs the flow.
        overrides: Dotted overrides of the file, e.g. `student.backbone=pvt_v2_b0`. Never a credential.
    """

    def work(operation: Operation) -> Outcome:
        check_before_run(operation.config, operation.workspace)
        require_targets(operation)
        return embed_prompts(operation) | study(operation)

    return operate(config_path, overrides, work)


@flow(**FLOW)
def evaluate(config_path: ConfigPath, overrides: Overrides | None = None) -> Outcome:
    """Score every non-empty subset of the modalities of every finished student, and write the report.

    Args:
        config_path: The TOML file, as seen from the machine that runs the flow.
        overrides: Dotted overrides of the file, e.g. `evaluate.split=test`. Never a credential.
    """
    return operate(config_path, overrides, score)


@flow(**FLOW)
def audit(
    config_path: ConfigPath,
    overrides: Overrides | None = None,
    share: Annotated[float, Field(gt=0.0, le=1.0)] = 0.001,
    deep: bool = False,
) -> Outcome:
    """Recompute a random part of the cached embeddings and verify every record of the workspace.

    Both results are tables in the UI. Drift beyond the tolerance and corrupt files fail the run and are
    named; unfinished work does not fail it.

    Args:
        config_path: The TOML file, as seen from the machine that runs the flow.
        overrides: Dotted overrides of the file, e.g. `teacher.device=cpu`. Never a credential.
        share: Fraction of the cached rows that is recomputed; at least 8 rows a modality. Every run
            draws other rows; the audit's record in the workspace names the seed.
        deep: Read every byte of shards and stores and compare it with its digest.
    """

    def work(operation: Operation) -> Outcome:
        # Another seed each run, so that repeated audits cover more rows; a retry draws the same ones.
        seed = UUID(str(flow_run.get_id())).int % 2**31
        states = {
            "examine": examine(operation.config, deep, return_state=True),
            "recompute": recompute(operation.config, share, seed, return_state=True),
        }
        return {name: finished(operation, "audit", name, s) for name, s in states.items()}

    # Holds the workspace like a writer: the unfinished work of another flow would look like corruption.
    return operate(config_path, overrides, work)
