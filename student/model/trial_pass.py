"""Whether a config's student can take its data set's images, found out before any work depends on it.

    require_student_fits(config, num_classes, shapes)

The student is built without pretrained weights and run once, forward and in training mode backward, at the
sizes and batch sizes that training and scoring will meet. It runs on torch's `meta` device, where shapes
are followed and nothing is computed: a second, whatever the size. Raises `ConfigError` naming the field, the
size and what to set.
"""

from __future__ import annotations

from dataclasses import dataclass

import timm
import torch

from pipeline.config.config import Config
from pipeline.errors import ConfigError
from pipeline.formats.weight_files import first_line
from student.model.student import Student

ANY_SIZE = "tf_efficientnet_lite0, pvt_v2_b0 or mit_b0"
"""Backbones that take images of any size, for a remedy."""
ONE_VALUE = "Expected more than 1 value per channel"
"""How torch begins the error of a batch norm that has nothing to average over."""
Size = tuple[int, int]
"""Height and width."""


@dataclass(frozen=True, slots=True)
class TrialShapes:
    """What the student will meet."""

    train: frozenset[Size]
    """Smallest and largest batch of training."""
    scored: frozenset[Size]
    """Smallest and largest image, or the window, of the evaluation split."""
    num_images: int
    """Fewest images that one training pass runs through the backbone together."""


def require_student_fits(config: Config, num_classes: int, shapes: TrialShapes) -> None:
    """Raise `ConfigError` if a pass of the student fails at any of the sizes."""
    student = _untrained(config, num_classes).to("meta")
    for size in sorted(shapes.train):
        _try(student.train(), config, size, shapes.num_images)
    for size in sorted(shapes.scored - shapes.train):
        _try(student.eval(), config, size, 1)


def _untrained(config: Config, num_classes: int) -> Student:
    """The config's student with weights drawn beside the caller's random numbers, not from them."""
    student_config = config.student.model_copy(update={"weights": "none"})
    with torch.random.fork_rng(devices=[]):
        return Student(student_config, config.specs(), num_classes)


def _try(student: Student, config: Config, size: Size, num_images: int) -> None:
    error = _error_of_pass(student, size, num_images)
    if error is None:
        return
    if ONE_VALUE in str(error):
        raise ConfigError(_one_value_text(config, size))
    # Not every operation exists on the meta device; only what fails with real numbers too is refused.
    real = _untrained(config, student.head.classify.out_channels).train(student.training)
    error = _error_of_pass(real, size, min(num_images, 2))
    if error is not None:
        raise ConfigError(_size_text(config, size, error))


def _error_of_pass(student: Student, size: Size, num_images: int) -> Exception | None:
    """What a pass over zeros raises, in training mode with its gradients; None if it succeeds."""
    images = torch.zeros(num_images, 3, *size, device=student.device)
    rows = [num_images, *[0] * (len(student.modalities) - 1)]
    try:
        with torch.random.fork_rng(devices=[]), torch.set_grad_enabled(student.training):
            logits = student.head(student.backbone(images, rows))
            if student.training:
                logits.sum().backward()
    except Exception as error:  # a backbone from elsewhere may raise anything
        return error
    return None


def _one_value_text(config: Config, size: Size) -> str:
    train = config.train
    parts = train.accumulate * train.processes
    each = f" in {parts} parts (train.accumulate x train.processes)" if parts > 1 else ""
    return (
        f"train.batch_size = {train.batch_size}{each}: at {_px(size)} batch norm in "
        f"{config.student.backbone} would get one value per channel, which has no variance. "
        f"Set train.batch_size = {2 * parts} or more."
    )


def _size_text(config: Config, size: Size, error: Exception) -> str:
    name = config.student.backbone
    own = _own_size(name)
    sized = own is not None and own != size and "size_px" in type(config.dataset).model_fields
    resize = (
        f"Set dataset.size_px = {list(own or ())}, the size it is built for; or s" if sized else "S"
    )
    return (
        f"student.backbone = {name!r} cannot take images of {_px(size)}: {first_line(error)}. "
        f"{resize}et student.backbone to one for any size, e.g. {ANY_SIZE}."
    )


def _own_size(name: str) -> Size | None:
    pretrained = (
        timm.get_pretrained_cfg(name, allow_unregistered=True) if timm.is_model(name) else None
    )
    return (pretrained.input_size[1], pretrained.input_size[2]) if pretrained else None


def _px(size: Size) -> str:
    return f"{size[0]} x {size[1]} px (height x width)"
