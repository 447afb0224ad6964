"""`[scale]`, `[schedule]` and `[notify]` of the configuration: how it is run.

No result depends on them. Checks across tables are in `pipeline.config.config`.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, NonNegativeFloat, PositiveInt, model_validator

from pipeline.core.frozen_model import Frozen


class ScaleConfig(Frozen):
    """Where the teacher runs: in this process, in several on this machine, or on a Dask cluster."""

    workers: PositiveInt = 1
    """Processes on this machine, which share its accelerators; 1: the calling one."""
    dask: Annotated[str, Field(pattern=r"^$|^(tcp|tls)://[^\s@]+$")] = ""
    """Address of a running Dask scheduler, e.g. `tls://head:8786`; its workers must see the workspace."""

    @model_validator(mode="after")
    def _one_of_them(self) -> ScaleConfig:
        if self.dask and self.workers > 1:
            raise ValueError("dask has workers of its own; expected it or workers, found both")
        return self

    @property
    def spread(self) -> bool:
        """Whether other processes encode, not the calling one."""
        return self.workers > 1 or bool(self.dask)


class ScheduleConfig(Frozen):
    """When a scheduled run retrains."""

    retrain_growth_percent: NonNegativeFloat = 5.0
    """Retrain when the manifest grew by this much since the last training; 0: by any sample."""


class NotifyConfig(Frozen):
    """Who is notified when a run fails. Put no secret here: Prefect's block holds it."""

    block: Annotated[str, Field(pattern=r"^([a-z0-9-]+/[a-z0-9-]+)?$")] = ""
    """A Prefect notification block as `type/name`, e.g. `slack-webhook/any2seg`; empty: nobody."""
