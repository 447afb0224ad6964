"""Which tower of a teacher sees which modality, and as what: decided from config files alone.

    for seen in tower_inputs(config, open_teacher(name).towers).values():
        print(seen)                             # thermal: image tower, grey_stretched

The one place that combines a config's modalities with the towers that a teacher has. Planning starts
here, and so does `any2seg run`, before it writes anything.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass

from pipeline.config.config import Config
from pipeline.config.teacher import of_teacher
from pipeline.errors import CheckpointError, ConfigError
from pipeline.modalities import KINDS, RENDERINGS, ModalitySpec, Rendering, TowerName
from teacher.preprocessing.rendering import tower_input


@dataclass(frozen=True, slots=True)
class TowerInput:
    """One modality, as its tower sees it."""

    modality: str
    spec: ModalitySpec
    tower: TowerName
    rendering: Rendering

    @property
    def is_plain(self) -> bool:
        """Whether the kind's own tower sees the stored values: nothing that needs saying."""
        return self.tower == self.spec.tower and self.rendering == "as_stored"

    def __str__(self) -> str:
        return f"{self.modality}: {self.tower} tower, {self.rendering}"


def stated(teacher: str, inputs: Iterable[TowerInput]) -> list[str]:
    """A line for each of a teacher's inputs that is rendered or has another tower than the kind's own."""
    return [of_teacher(teacher, str(seen)) for seen in inputs if not seen.is_plain]


def tower_inputs(
    config: Config, towers: Collection[TowerName], *, is_first: bool = True
) -> dict[str, TowerInput]:
    """Tower and rendering of each modality, in the config's order, for a teacher that has `towers`.

    What the config says of a modality is meant for its first teacher; a second one follows where it
    can. Raises `CheckpointError` (a tower that the teacher lacks and nothing replaces) or `ConfigError`
    (a tower that cannot read the kind, or the rendering).
    """
    inputs = {}
    for name, spec in config.specs().items():
        chosen = config.modalities[name]
        follows = is_first or chosen.tower in towers
        tower, rendering = tower_input(
            spec if follows else KINDS[spec.kind],
            towers,
            tower=chosen.tower if follows else None,
            rendering=chosen.rendering,
        )
        if tower not in towers:
            raise CheckpointError(_lacks_tower(config, name, tower, towers))
        if tower == "depth":
            _require_millimetres(name, spec, rendering, is_first)
            rendering = "as_stored"
        inputs[name] = TowerInput(name, spec, tower, rendering)
    return inputs


def _lacks_tower(config: Config, name: str, tower: TowerName, towers: Collection[TowerName]) -> str:
    lacks = f"teacher {config.teacher.name} has no {tower} tower, only: {', '.join(towers)}."
    if config.modalities[name].tower is None or tower == "image":
        return f"modalities.{name}: {lacks} Set teacher.name to one that has it."
    kind = config.specs()[name].kind
    return (
        f'modalities.{name}.tower = "{tower}": {lacks} Remove it, and the image tower sees '
        f"{name} {RENDERINGS[kind]}; or set teacher.name to one that has it."
    )


def _require_millimetres(
    name: str, spec: ModalitySpec, rendering: Rendering, is_first: bool
) -> None:
    if spec.unit != "mm":
        raise ConfigError(
            f"modalities.{name}.tower: the depth tower reads millimetres, kind {spec.kind!r} holds "
            f"{spec.unit}s; expected tower 'image' or a kind in mm"
        )
    if is_first and rendering != "as_stored":
        raise ConfigError(
            f"modalities.{name}.rendering = {rendering!r}: the depth tower reads millimetres as stored; "
            f'leave it out, or set modalities.{name}.tower = "image"'
        )
