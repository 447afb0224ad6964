"""What a config asks of its teacher, checked before anything is computed.

    require_capable(config)          # `ConfigError`: a term needs prompts, and the teacher has no text tower
                                     # `CheckpointError`: a modality needs a tower that the teacher lacks

No weights are read and no request is made: a teacher that is not on this machine passes, so that a
student can be trained from the cache alone.
"""

from __future__ import annotations

from collections.abc import Iterator

from pipeline.config.config import Config
from pipeline.config.load import MAIN_ROW, rows
from pipeline.config.teacher import TEACHER
from pipeline.errors import CheckpointError, ConfigError
from teacher.encoding.tower_inputs import TowerInput, tower_inputs
from teacher.open import open_teacher


def require_capable(config: Config) -> None:
    """Raise `ConfigError` naming each setting that needs a text tower which the teacher lacks.

    Raises as `tower_inputs` does for a modality that none of the teacher's towers can embed.
    """
    known_inputs(config)
    needs = list(_text_needs(config))
    if not needs:
        return
    if lacks_text(config):
        raise ConfigError(
            f"teacher.name: {config.teacher.name} has no text tower, and these need one: "
            f"{'; '.join(needs)}. The terms `inter` and `dense` need none."
        )


def known_inputs(config: Config, *, local_only: bool = True) -> dict[str, dict[str, TowerInput]]:
    """Name of each teacher (of its table) to what its towers see of each modality.

    `local_only` makes no request and leaves out a teacher that is not on this machine. Raises as
    `tower_inputs` does.
    """
    known = {}
    for name, own in config.teachers().items():
        try:
            teacher = open_teacher(own.teacher.name, own.teacher.revision, local_only=local_only)
            towers = teacher.towers
        except CheckpointError:
            if not local_only:
                raise
            continue
        known[name] = tower_inputs(own, towers, is_first=name == TEACHER)
    return known


def lacks_text(config: Config) -> bool:
    """Whether the teacher is known to have no text tower, so that there are no class prompts."""
    try:
        teacher = open_teacher(config.teacher.name, config.teacher.revision, local_only=True)
    except CheckpointError:
        return False
    return teacher.text is None


def _text_needs(config: Config) -> Iterator[str]:
    """Each setting that needs a text tower, with what to set instead."""
    for name, row in rows(config).items():
        lscd = row.student.lscd
        where = "" if name == MAIN_ROW else f"compare.{name}: "
        if lscd.prompts == "text" and lscd.intra:
            instead = "set it to 0" if lscd.dense else 'set it to 0, or prompts = "one_hot"'
            yield f"{where}student.lscd.intra = {lscd.intra} ({instead})"
        if lscd.dense and lscd.dense_distance == "kl":
            yield f'{where}student.lscd.dense_distance = "kl" (set it to "cosine")'
    if config.descriptions is not None:
        yield "descriptions (remove the table, and student.lscd.scene_column)"
