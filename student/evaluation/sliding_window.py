"""Prediction of images of any size: whole, or window by window with averaged overlaps.

    tiled(model, inputs, present, window)                       # one set of modalities
    merged(((w, logits_of(w)) for w in window_slices(height, width, window)), height, width)

Legend: M modalities, K classes, H W space.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import product

from pydantic import Field, PositiveInt
from torch import Tensor

from pipeline.core.frozen_model import Frozen
from student.model.student import Student

WindowSlice = tuple[slice, slice]
"""Rows and columns of one window."""


class Window(Frozen):
    """A square window that slides over an image."""

    side_px: PositiveInt
    overlap: float = Field(default=1 / 3, ge=0.0, lt=1.0)
    """Share of the side that neighbours have in common, at least."""

    def starts(self, length: int) -> list[int]:
        """First pixels of the windows along an axis; the last one ends with the image."""
        last = max(0, length - self.side_px)
        stride = max(1, int(self.side_px * (1 - self.overlap)))
        return [*range(0, last, stride), last]

    def spans(self, length: int) -> list[slice]:
        """The windows along an axis, all of one length."""
        side = min(self.side_px, length)
        return [slice(first, first + side) for first in self.starts(length)]


def window_slices(height: int, width: int, window: Window | None) -> list[WindowSlice]:
    """Where the windows lie, row by row; without a window the whole image is the only one."""
    if window is None:
        return [(slice(0, height), slice(0, width))]
    return list(product(window.spans(height), window.spans(width)))


def merged(windows: Iterable[tuple[WindowSlice, Tensor]], height: int, width: int) -> Tensor:
    """Logits (B, K, H, W) from those of windows, taken one after the other; overlaps are averaged."""
    total: Tensor | None = None
    for window, logits in windows:
        if logits.shape[-2:] == (height, width):
            return logits
        if total is None:
            total = logits.new_zeros((*logits.shape[:2], height, width))
            count = logits.new_zeros((height, width))
        total[..., window[0], window[1]] += logits
        count[window] += 1
    assert total is not None
    return total / count


def tiled(
    model: Student, inputs: Mapping[str, Tensor], present_BM: Tensor, window: Window | None
) -> Tensor:
    """Logits (B, K, H, W) at the size of the inputs (B, 1 or 3, H, W); overlaps are averaged."""
    height, width = next(iter(inputs.values())).shape[-2:]
    logits = (
        (part, model({n: image[..., *part] for n, image in inputs.items()}, present_BM))
        for part in window_slices(height, width, window)
    )
    return merged(logits, height, width)
