"""The stages by name. Each import is made when a stage runs.

`train` and `evaluate` import no teacher code: a student can be retrained where `transformers` is not
installed.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

from pipeline.config.config import Config
from pipeline.core.memory import is_out_of_memory
from pipeline.core.stage_report import StageReport
from pipeline.errors import ConfigError
from pipeline.workspace import Workspace

log = logging.getLogger(__name__)


def prepare(config: Config, workspace: Workspace) -> StageReport:
    """Source data to shards and manifest."""
    from pipeline.shards.prepare import prepare as stage

    return stage(config, workspace)


def precompute(config: Config, workspace: Workspace) -> StageReport:
    """Shards to teacher embeddings, class names to prompt embeddings."""
    if config.scale.spread:
        from teacher.encoding.dask_cluster import precompute_spread

        return precompute_spread(config, workspace)
    from teacher.encoding.precompute import precompute as stage

    return stage(config, workspace)


def prompts(config: Config, workspace: Workspace) -> StageReport:
    """Class names to prompt embeddings alone: what a retraining with new prompts needs."""
    from teacher.encoding.precompute import precompute_prompts as stage

    return stage(config, workspace)


def describe(config: Config, workspace: Workspace) -> StageReport:
    """Shards to scene descriptions and their embeddings. `ConfigError` if the config asks for none."""
    from teacher.encoding.describe import describe as stage

    if config.descriptions is None:
        raise ConfigError(
            "descriptions: not set. Add a table to the config, e.g. "
            '`descriptions = { source = "from_labels" }`.'
        )
    return stage(config, workspace, config.descriptions)


def train(config: Config, workspace: Workspace) -> StageReport:
    """Shards and cached targets to a student checkpoint."""
    from student.training.train import train as stage

    return stage(config, workspace)


def train_live(config: Config, workspace: Workspace) -> StageReport:
    """Shards to a student checkpoint, with a teacher that answers on demand. Loads its towers."""
    from student.training.train import train as stage
    from teacher.encoding.live import LiveTeacher

    return stage(config, workspace, live=LiveTeacher.open(config, workspace))


def evaluate(config: Config, workspace: Workspace) -> StageReport:
    """A student checkpoint to scores of every subset of the modalities.

    Memory that does not suffice halves the batch, on which no score depends, down to one sample; not
    in one of several processes, where the others would wait for it.
    """
    from student.evaluation.evaluate import evaluate as stage
    from student.runs.launch import is_launched

    while True:
        size = config.evaluate.batch_size
        try:
            return stage(config, workspace)
        except (MemoryError, RuntimeError) as error:
            if size == 1 or is_launched() or not is_out_of_memory(error):
                raise
        log.warning("evaluate: %d samples do not fit; going on with %d at a time", size, size // 2)
        halved = config.evaluate.model_copy(update={"batch_size": size // 2})
        config = config.model_copy(update={"evaluate": halved})


def report(config: Config, workspace: Workspace) -> StageReport:
    """Scores, curves and pictures to one HTML page."""
    from flows.report.report import report as stage

    return stage(config, workspace)


STAGES: dict[str, Callable[[Config, Workspace], StageReport]] = {
    "prepare": prepare,
    "precompute": precompute,
    "prompts": prompts,
    "describe": describe,
    "train": train,
    "train_live": train_live,
    "evaluate": evaluate,
    "report": report,
}
