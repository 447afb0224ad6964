"""The stages by name.

    load_stage("train")(config, workspace) -> StageReport

A stage's module is imported when the stage is loaded, so `train` and `evaluate` import no teacher code: a
student can be retrained where `transformers` is not installed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pkgutil import resolve_name
from typing import cast

from pipeline.config.config import Config
from pipeline.core.stage_report import StageReport
from pipeline.workspace import Workspace

Stage = Callable[[Config, Workspace], StageReport]

STAGES: Mapping[str, str] = {
    "prepare": "pipeline.shards.prepare:prepare",
    "precompute": "flows.stages:precompute",
    "prompts": "teacher.encoding.precompute:precompute_prompts",
    "describe": "teacher.encoding.describe:describe",
    "train": "student.training.train:train",
    "train_live": "flows.stages:train_live",
    "evaluate": "student.evaluation.evaluate:evaluate",
    "report": "flows.report.report:report",
}
"""Stage to `module:function`, as `pkgutil.resolve_name` reads it."""


def load_stage(name: str) -> Stage:
    """Import a stage. `KeyError` for a name that is not in `STAGES`."""
    return cast(Stage, resolve_name(STAGES[name]))


def precompute(config: Config, workspace: Workspace) -> StageReport:
    """The teacher pass, in this process or on the workers that `config.scale` asks for."""
    # The cluster's ranges call `precompute` themselves, so neither of the two modules can choose.
    if config.scale.spread:
        from teacher.encoding.dask_cluster import precompute_spread

        return precompute_spread(config, workspace)
    from teacher.encoding.precompute import precompute as precompute_here

    return precompute_here(config, workspace)


def train_live(config: Config, workspace: Workspace) -> StageReport:
    """Training with a teacher that encodes on demand instead of the cache; loads its towers."""
    # Here and not in a room below: teacher and student do not import each other.
    from student.training.train import train
    from teacher.encoding.live import LiveTeacher

    return train(config, workspace, live=LiveTeacher.open(config, workspace))
