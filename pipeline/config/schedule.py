"""Settings of scheduled runs: when a student is worth retraining, and who is told of a failure.

Plain validated values; `pipeline.config.config` puts them together. Nothing that is computed depends on them.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, NonNegativeFloat

from pipeline.core.frozen_model import Frozen


class ScheduleConfig(Frozen):
    """When a scheduled run trains."""

    retrain_growth_percent: NonNegativeFloat = 5.0
    """Retrain when the manifest grew by this much since the last trained student; 0: by any sample."""


class NotifyConfig(Frozen):
    """Who is told when a run fails. No secret belongs here: a block keeps its own."""

    block: Annotated[str, Field(pattern=r"^([a-z0-9-]+/[a-z0-9-]+)?$")] = ""
    """A Prefect notification block as `type/name`, e.g. `slack-webhook/any2seg`; empty: nobody."""
