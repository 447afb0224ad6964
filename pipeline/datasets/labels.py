"""The meaning of a data set's labels: classes, ids or colours, and what is ignored.

`LabelOptions` is the part of a config that adapters without built-in classes share, `LabelReader` reads
label files by it. A label that does not fit raises `BadImageError`.
"""

from __future__ import annotations

import colorsys
import re
from collections import Counter
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, field_validator, model_validator

from pipeline.datasets.base import IGNORE_ID, RGB, DatasetOptions
from pipeline.datasets.label_images import label_table, read_colour_label, read_label
from pipeline.formats.image_file import File

COLOUR = re.compile(r"#[0-9a-fA-F]{6}")


class LabelOptions(DatasetOptions):
    """Class names, and how label values become class ids."""

    classes: tuple[str, ...] = Field(min_length=1, max_length=255)
    """Class names; the index is the class id."""
    palette: tuple[RGB, ...] | None = None
    """One colour a class; default: evenly spread hues."""
    ignore_ids: tuple[int, ...] = (IGNORE_ID,)
    """Raw label ids of ignored pixels."""
    remap: dict[int, int] = {}
    """Raw label id to class id; if given, ids in neither it nor `ignore_ids` are refused."""
    label_colours: dict[str, int] = {}
    """`#rrggbb` to class id (255: ignored), for labels painted in colours; others are refused."""

    growth_fields: ClassVar[frozenset[str]] = frozenset({"palette"})
    optional_fields: ClassVar[frozenset[str]] = frozenset({"label_colours"})

    @field_validator("classes")
    @classmethod
    def _names_are_distinct(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        twice = [name for name, count in Counter(value).items() if count > 1]
        if twice:
            raise ValueError(f"class {twice[0]!r} is listed twice; expected distinct names")
        return value

    @field_validator("palette")
    @classmethod
    def _colours_are_8_bit(cls, value: tuple[RGB, ...] | None) -> tuple[RGB, ...] | None:
        if any(not 0 <= channel <= 255 for colour in value or () for channel in colour):
            raise ValueError("expected channels from 0 to 255")
        return value

    @model_validator(mode="after")
    def _ids_fit_classes(self) -> LabelOptions:
        num_classes = len(self.classes)
        if self.palette is not None and len(self.palette) != num_classes:
            raise ValueError(f"palette: expected {num_classes} colours, found {len(self.palette)}")
        for raw in (*self.ignore_ids, *self.remap):
            if not 0 <= raw < 2**16:
                raise ValueError(f"label id {raw}: expected 0..65535")
        targets = {f"remap.{raw}": target for raw, target in self.remap.items()}
        targets |= {f"label_colours.{key}": target for key, target in self.label_colours.items()}
        for field_name, target in targets.items():
            if not (0 <= target < num_classes or target == IGNORE_ID):
                raise ValueError(
                    f"{field_name} = {target}: expected a class id 0..{num_classes - 1} "
                    f"or {IGNORE_ID}"
                )
        for raw, target in self.remap.items():
            if raw in self.ignore_ids and target != IGNORE_ID:
                raise ValueError(f"remap.{raw}: the id is also in ignore_ids; list it once")
        return self

    @model_validator(mode="after")
    def _ids_or_colours(self) -> LabelOptions:
        if self.label_colours and self.remap:
            raise ValueError("label_colours and remap: give one of the two")
        for colour in self.label_colours:
            if not COLOUR.fullmatch(colour):
                raise ValueError(f"label_colours.{colour}: expected #rrggbb")
        return self

    def colours(self) -> tuple[RGB, ...]:
        """One colour a class: configured, those of the labels, or evenly spread hues."""
        if self.palette:
            return self.palette
        painted = {i: _rgb(colour) for colour, i in reversed(self.label_colours.items())}
        spread = spread_palette(len(self.classes))
        return tuple(painted.get(i, colour) for i, colour in enumerate(spread))


class LabelReader:
    """Reads label files as the options say."""

    def __init__(self, options: LabelOptions, channel: int | None = None) -> None:
        self._table = label_table(len(options.classes), options.ignore_ids, options.remap)
        self._colours = {_rgb(colour): i for colour, i in options.label_colours.items()}
        self._channel = channel

    def __call__(self, file: File) -> NDArray[np.uint8]:
        """(H, W) class ids. Raises `BadImageError`."""
        if self._colours:
            return read_colour_label(file, self._colours)
        return read_label(file, self._table, self._channel)


def spread_palette(num_classes: int) -> tuple[RGB, ...]:
    """Distinct colours: hues by the golden ratio, brightness alternating."""
    colours = []
    for index in range(num_classes):
        hue, value = (index * 0.618034) % 1.0, 0.95 if index % 2 == 0 else 0.65
        red, green, blue = colorsys.hsv_to_rgb(hue, 0.75, value)
        colours.append((round(red * 255), round(green * 255), round(blue * 255)))
    return tuple(colours)


def _rgb(colour: str) -> RGB:
    return int(colour[1:3], 16), int(colour[3:5], 16), int(colour[5:7], 16)
