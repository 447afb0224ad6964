"""Settings of the teacher pass on several processes or machines.

Plain validated values; `pipeline.config.config` puts them together. No number depends on them.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, PositiveInt, model_validator

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
