"""Which classes the label files of an unknown dataset folder contain: ids, or colours.

    labels = guess_labels(paths)

Unreadable files are skipped (the doctor names them). `DatasetError` if none can be read, or if the
values are neither ids nor few colours.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pipeline.datasets.base import IGNORE_ID, RGB
from pipeline.errors import DatasetError
from pipeline.formats.image_file import ARRAY_EXTENSIONS, read_raw

MAX_CLASSES = 255


@dataclass(frozen=True, slots=True)
class Labels:
    """Contents of the label files: ids, or colours."""

    ids: dict[int, int]
    """Raw id to class id; class ids are 0..K-1, `IGNORE_ID` for ignored ones."""
    colours: dict[RGB, int]
    """Colour to class id, for labels painted in colours; then `ids` is empty."""
    palette: dict[int, RGB]
    """Class id to the colour in the palettes of the label files; empty if they have none."""
    channel: str | None
    """Channel of colour files that holds the ids."""
    num_read: int
    sizes: frozenset[tuple[int, int]]
    """(height, width) of all of them."""

    @property
    def num_classes(self) -> int:
        """Classes, the ignored value aside."""
        targets = {*self.ids.values(), *self.colours.values()} - {IGNORE_ID}
        return max(targets, default=0) + 1

    @property
    def smallest(self) -> tuple[int, int]:
        """Smallest height and smallest width, not necessarily of one label."""
        return min(height for height, _ in self.sizes), min(width for _, width in self.sizes)


def guess_labels(paths: Iterable[Path]) -> Labels:
    """Ids or colours in the label files. `DatasetError` if they are neither."""
    seen = _Seen()
    for path in paths:
        values = _read_label(path, seen.palette)
        if values is None:
            continue
        seen.add(values)
        if max(len(seen.colours), len(seen.ids)) > MAX_CLASSES + 1:
            raise DatasetError(
                f"{path}: more than {MAX_CLASSES} different values in the labels so far; expected "
                "class ids or one colour a class. Are these labels, and never saved as JPEG?"
            )
    if not seen.sizes:
        raise DatasetError("no label can be read. Are the label files complete?")
    read = seen.num_read, frozenset(seen.sizes)
    if seen.colours:
        by_colour = {colour: index for index, colour in enumerate(sorted(seen.colours))}
        by_class = {index: colour for colour, index in by_colour.items()}
        return Labels({}, by_colour, by_class, None, *read)
    ids = class_ids(seen.ids)
    palette = {ids[raw]: colour for raw, colour in seen.palette.items() if raw in ids}
    palette.pop(IGNORE_ID, None)
    return Labels(ids, {}, palette, "first" if "first" in seen.channels else None, *read)


@dataclass
class _Seen:
    """Contents of the labels read so far."""

    ids: set[int] = field(default_factory=set)
    colours: set[RGB] = field(default_factory=set)
    palette: dict[int, RGB] = field(default_factory=dict)
    sizes: set[tuple[int, int]] = field(default_factory=set)
    channels: set[str | None] = field(default_factory=set)
    num_read: int = 0

    def add(self, values: NDArray[Any]) -> None:
        self.num_read += 1
        self.sizes.add((values.shape[0], values.shape[1]))
        channel = _id_channel(values)
        self.channels.add(channel)
        if channel == "colour":
            flat = np.unique(values.reshape(-1, 3), axis=0)
            self.colours.update((int(r), int(g), int(b)) for r, g, b in flat)
        else:
            ids = values if values.ndim == 2 else values[:, :, 0]
            self.ids.update(int(raw) for raw in np.unique(ids))


def class_ids(seen: set[int]) -> dict[int, int]:
    """Raw id to class id. 255 is ignored, unless 0 and 255 are all there is (a mask).

    Ids that nearly fill 0..max stay unchanged, so that a class that does not occur keeps its id.
    """
    classes = sorted(seen - {IGNORE_ID})
    if seen == {0, IGNORE_ID}:
        return {0: 0, IGNORE_ID: 1}
    ignored = {IGNORE_ID: IGNORE_ID}
    if not classes or 2 * len(classes) > classes[-1] + 1:
        return {**{raw: raw for raw in range(max(classes, default=0) + 1)}, **ignored}
    return {**{raw: index for index, raw in enumerate(classes)}, **ignored}


def _id_channel(values: NDArray[Any]) -> str | None:
    """None: one channel of ids; `first`: grey, or ids in red alone; `colour`: painted."""
    if values.ndim == 2:
        return None
    red, green, blue = (values[:, :, c] for c in range(3))
    is_grey = not ((red != green) | (red != blue)).any()
    return "first" if is_grey or not (green.any() or blue.any()) else "colour"


def _read_label(path: Path, palette: dict[int, RGB]) -> NDArray[Any] | None:
    """(H, W) ids or (H, W, 3) colours of a label; notes a palette's colours. None if unreadable."""
    try:
        if path.suffix.lower() in ARRAY_EXTENSIONS:
            return read_raw(path).values
        with Image.open(path) as image:
            return _image_values(image, palette)
    except Exception:  # a parser may raise anything on corrupted bytes
        return None


def _image_values(image: Image.Image, palette: dict[int, RGB]) -> NDArray[Any]:
    if image.mode == "P":
        values = np.array(image)
        used = image.getpalette("RGB") or []
        for raw in np.unique(values).tolist():
            red, green, blue = used[3 * raw : 3 * raw + 3] or (0, 0, 0)
            palette[raw] = (red, green, blue)
        return values
    if image.mode == "1":
        return np.array(image).astype(np.uint8)
    if image.mode in ("RGBA", "LA", "PA", "CMYK"):
        return np.array(image.convert("RGB"))
    return np.array(image)
