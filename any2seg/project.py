"""A config and its workspace, with the stages as methods: what `any2seg.open` returns."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.config.config import Config
from pipeline.config.load import load_config
from pipeline.workspace import Workspace

if TYPE_CHECKING:
    from pipeline.core.stage_report import StageReport


@dataclass(frozen=True, slots=True)
class Project:
    """One experiment. Each stage does what is missing and returns its report; order as below.

    Raises what the stages raise: `pipeline.errors.Any2SegError` and, from storage, `OSError`.
    """

    config: Config
    """The resolved config: presets and overrides applied."""
    workspace: Workspace
    """Paths of everything that the stages write; `workspace.root` is the folder or bucket prefix."""

    def prepare(self) -> StageReport:
        """Source data to shards and manifest."""
        return self._run("prepare")

    def precompute(self) -> StageReport:
        """Shards and class names to cached teacher targets."""
        return self._run("precompute")

    def train(self) -> StageReport:
        """Shards and cached targets to a student checkpoint."""
        return self._run("train")

    def evaluate(self) -> StageReport:
        """The student's scores on every subset of the modalities."""
        return self._run("evaluate")

    def report(self) -> StageReport:
        """One HTML page about the main run and its comparison rows."""
        return self._run("report")

    def _run(self, stage: str) -> StageReport:
        # Imported here: opening a project and reading its config must not cost what stages import.
        from flows.stages import load_stage

        return load_stage(stage)(self.config, self.workspace)


def open(config: str | Path | Config, overrides: Iterable[str] = ()) -> Project:
    """Open a TOML file with dotted overrides (`train.steps=100`), or a config that is loaded already.

    Reads the config only; creates no file and checks no data. Raises `ConfigError`.
    """
    if isinstance(config, Config):
        overrides = tuple(overrides)
        if overrides:
            raise TypeError("overrides: expected none with a loaded Config; pass the TOML file")
    else:
        config = load_config(config, overrides)
    return Project(config, Workspace.of(config))
