"""Prediction of pictures of any size: whole, or window by window with averaged overlaps.

    tiled(model, inputs, present, window)                       # one set of modalities
    merged(((place, logits_of(place)) for place in places(size, window)), size)

Writes nothing; a window of less than one pixel cannot be asked for (`Window` checks).
Legend: M modalities, K classes, H W space.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import product

from pydantic import Field, PositiveInt
from torch import Tensor

from pipeline.core.frozen_model import Frozen
from student.model.student import Student

Place = tuple[slice, slice]
"""Rows and columns of a window."""


class Window(Frozen):
    """A square window that slides over a picture."""

    side_px: PositiveInt
    overlap: float = Field(default=1 / 3, ge=0.0, lt=1.0)
    """Share of the side that neighbours have in common, at least."""

    def starts(self, length: int) -> list[int]:
        """First pixels of the windows along an axis; the last one ends with the picture."""
        last = max(0, length - self.side_px)
        stride = max(1, int(self.side_px * (1 - self.overlap)))
        return [*range(0, last, stride), last]

    def spans(self, length: int) -> list[slice]:
        """The windows along an axis, all of one length."""
        side = min(self.side_px, length)
        return [slice(first, first + side) for first in self.starts(length)]


def places(height: int, width: int, window: Window | None) -> list[Place]:
    """Where the windows lie, row by row; without a window the whole picture is the only one."""
    if window is None:
        return [(slice(0, height), slice(0, width))]
    return list(product(window.spans(height), window.spans(width)))


def merged(parts: Iterable[tuple[Place, Tensor]], height: int, width: int) -> Tensor:
    """Logits (B, K, H, W) from those of windows, taken one after the other; overlaps are averaged."""
    total: Tensor | None = None
    for place, logits in parts:
        if logits.shape[-2:] == (height, width):
            return logits
        if total is None:
            total = logits.new_zeros((*logits.shape[:2], height, width))
            count = logits.new_zeros((height, width))
        total[..., place[0], place[1]] += logits
        count[place] += 1
    assert total is not None
    return total / count


def tiled(
    model: Student, inputs: Mapping[str, Tensor], present_BM: Tensor, window: Window | None
) -> Tensor:
    """Logits (B, K, H, W) at the size of the inputs (B, 1 or 3, H, W); overlaps are averaged."""
    height, width = next(iter(inputs.values())).shape[-2:]
    found = (
        (place, model({n: picture[..., *place] for n, picture in inputs.items()}, present_BM))
        for place in places(height, width, window)
    )
    return merged(found, height, width)
