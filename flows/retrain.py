"""The flow `retrain`: students from the cached targets; no vision tower is loaded, no picture encoded.

Class prompts that are new are embedded by the text tower, once. Missing targets end the run with
`MissingTarget` before anything is trained.
"""

from __future__ import annotations

from prefect import flow

from flows.flow_context import Operation, Outcome, operate
from flows.options import FLOW
from flows.parameters import ConfigPath, Overrides
from flows.steps import embed_prompts, require_targets, study


@flow(name="retrain", **FLOW)
def retrain(config_path: ConfigPath, overrides: Overrides | None = None) -> Outcome:
    """Train, score and report students from what the teacher left in the workspace.

    Args:
        config_path: The TOML file, as seen from the machine that runs the flow.
        overrides: Dotted overrides of the file, e.g. `student.backbone=pvt_v2_b0`. Never a credential.
    """

    def work(operation: Operation) -> Outcome:
        require_targets(operation)
        return embed_prompts(operation) | study(operation)

    return operate("retrain", config_path, overrides, work)
