"""What a teacher's tower will see of an image file: rendered, preprocessed, and made visible again.

    image, seen = preview("languagebind-tiny", Path("0001.tif"), "thermal16")

The tower's own `preprocess` makes the pixel values, so its resize and crop are shown as they are. They
are mapped back to [0, 1] by what it makes of black and white, so no teacher has to name its
normalisation.

Legend: S pixels, C channels.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import DatasetError
from pipeline.formats.image_file import BadImageError, read_image
from pipeline.modalities import spec_for
from teacher.contract import LoadedTower, TeacherTower
from teacher.encoding.tower_inputs import TowerInput
from teacher.open import open_teacher
from teacher.preprocessing.rendering import render, tower_input


def preview(
    name: str, file: Path, kind: str, *, revision: str | None = None
) -> tuple[NDArray[np.uint8], TowerInput]:
    """(S, S, 3) uint8 and what was done: the tower and rendering that `kind` gets from teacher `name`.

    Raises `ConfigError` (unknown kind), `CheckpointError` (teacher) or `DatasetError` (a file that does
    not fit the kind).
    """
    spec = spec_for(kind, "--kind")
    try:
        stored = read_image(file, spec)
    except BadImageError as error:
        raise DatasetError(f"{error}. `any2seg kinds` lists the kinds for --kind.") from None
    teacher = open_teacher(name, revision)
    tower, rendering = tower_input(spec, teacher.towers)
    source = teacher.tower(tower)
    loaded = source.load("float32", "cpu")
    shown = render(stored, spec, rendering)
    return _visible(loaded, source, shown), TowerInput(kind, spec, tower, rendering)


def _visible(loaded: LoadedTower, source: TeacherTower, shown: NDArray[Any]) -> NDArray[np.uint8]:
    """Pixel values of `shown` as (S, S, 3) uint8."""
    pixels_CSS = _pixels(loaded, shown)
    black_C, white_C = _black_and_white(loaded, source, shown)
    unit_CSS = (pixels_CSS - black_C[:, None, None]) / (white_C - black_C)[:, None, None]
    image: NDArray[np.uint8] = np.rint(255 * np.clip(unit_CSS, 0.0, 1.0)).astype(np.uint8)
    return image.transpose(1, 2, 0)


def _black_and_white(
    loaded: LoadedTower, source: TeacherTower, like: NDArray[Any]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Pixel values (C,) of the least and the largest stored value, in the form of `like`."""
    height, width = source.input_px
    # Both in one image: a depth tower may scale each image by its own maximum.
    halves = np.zeros((height, width, *like.shape[2:]), like.dtype)
    halves[:, width // 2 :] = np.iinfo(like.dtype).max
    pixels_CSS = _pixels(loaded, halves)
    return pixels_CSS[:, 0, 0], pixels_CSS[:, 0, -1]


def _pixels(loaded: LoadedTower, array: NDArray[Any]) -> NDArray[np.float32]:
    pixels: NDArray[np.float32] = loaded.preprocess([array])[0].cpu().numpy()
    return pixels
