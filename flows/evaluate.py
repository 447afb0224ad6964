"""The flow `evaluate`: scores and report of students that are trained."""

from __future__ import annotations

from prefect import flow

from flows.flow_context import Outcome, operate
from flows.options import FLOW
from flows.parameters import ConfigPath, Overrides
from flows.steps import score


@flow(name="evaluate", **FLOW)
def evaluate(config_path: ConfigPath, overrides: Overrides | None = None) -> Outcome:
    """Score every non-empty subset of the modalities of every finished student, and write the report.

    Args:
        config_path: The TOML file, as seen from the machine that runs the flow.
        overrides: Dotted overrides of the file, e.g. `evaluate.split=test`. Never a credential.
    """
    return operate("evaluate", config_path, overrides, score)
