"""The flow `refresh-teacher`: shards and teacher targets of what is new, no student."""

from __future__ import annotations

from prefect import flow

from flows.flow_context import Outcome, operate
from flows.options import FLOW
from flows.parameters import ConfigPath, Overrides
from flows.steps import teach


@flow(name="refresh-teacher", **FLOW)
def refresh_teacher(config_path: ConfigPath, overrides: Overrides | None = None) -> Outcome:
    """Prepare new source data and embed what has no embeddings yet. Trains nothing.

    Args:
        config_path: The TOML file, as seen from the machine that runs the flow.
        overrides: Dotted overrides of the file, e.g. `teacher.batch_size=16`. Never a credential.
    """
    return operate("refresh-teacher", config_path, overrides, teach)
