"""The flow `any2seg`: every stage that a config needs.

Completion is read from the workspace, never from Prefect: what is there is not made again, whichever
run made it.
"""

from __future__ import annotations

from prefect import flow

from flows.flow_context import Operation, Outcome, operate
from flows.options import FLOW
from flows.parameters import ConfigPath, Overrides
from flows.retrain_decision import decide
from flows.steps import nothing_to_do, study, teach


@flow(name="any2seg", **FLOW)
def any2seg(
    config_path: ConfigPath, overrides: Overrides | None = None, when_due: bool = False
) -> Outcome:
    """Run every stage that a config needs; what is already in the workspace is not made again.

    Args:
        config_path: The TOML file, as seen from the machine that runs the flow.
        overrides: Dotted overrides of the file, e.g. `train.steps=100`. Never a credential.
        when_due: Train only if the config's `[schedule]` says that it is worth it (the manifest grew
            enough, or towers, prompts or settings changed). New data are always prepared and embedded.
    """

    def work(operation: Operation) -> Outcome:
        reports = teach(operation)
        if when_due:
            decision = decide(operation.config, operation.workspace)
            if not decision.run:
                return nothing_to_do(decision, reports)
        return reports | study(operation)

    return operate("run", config_path, overrides, work)
