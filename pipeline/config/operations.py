"""Settings of operation: who encodes, when a scheduled run retrains, who is notified of a failure.

Plain validated values; `pipeline.config.config` puts them together. No result depends on them.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, NonNegativeFloat, PositiveInt, model_validator

from pipeline.core.frozen_model import Frozen


class ScaleConfig(Frozen):
    """Who encodes: this process, several on this machine, or a Dask cluster."""

    workers: PositiveInt = 1
    """Processes on this machine, with the accelerators dealt out among them; 1: the calling one."""
    dask: Annotated[str, Field(pattern=r"^$|^(tcp|tls)://[^\s@]+$")] = ""
    """Address of a running Dask scheduler, e.g. `tls://head:8786`; its workers must see the workspace."""

    @model_validator(mode="after")
    def _one_of_them(self) -> ScaleConfig:
        if self.dask and self.workers > 1:
            raise ValueError("dask has workers of its own; expected it or workers, found both")
        return self

    @property
    def spread(self) -> bool:
        """Whether the calling process encodes nothing itself."""
        return self.workers > 1 or bool(self.dask)


class ScheduleConfig(Frozen):
    """When a scheduled run trains."""

    retrain_growth_percent: NonNegativeFloat = 5.0
    """Retrain when the manifest grew by this much since the last trained student; 0: by any sample."""


class NotifyConfig(Frozen):
    """Who is notified when a run fails. No secret belongs here: a block keeps its own."""

    block: Annotated[str, Field(pattern=r"^([a-z0-9-]+/[a-z0-9-]+)?$")] = ""
    """A Prefect notification block as `type/name`, e.g. `slack-webhook/any2seg`; empty: nobody."""
