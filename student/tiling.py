"""Prediction of pictures of any size: whole, or window by window with averaged overlaps.

Writes nothing; a window of less than one pixel cannot be asked for (`Window` checks).
Legend: M modalities, K classes, H W space.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import product

import torch
from pydantic import Field, PositiveInt
from torch import Tensor

from pipeline.frozen import Frozen
from student.model import Student


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


def tiled(
    model: Student, inputs: Mapping[str, Tensor], present_BM: Tensor, window: Window | None
) -> Tensor:
    """Logits (B, K, H, W) at the size of the inputs (B, 1 or 3, H, W); overlaps are averaged."""
    height, width = next(iter(inputs.values())).shape[-2:]
    if window is None or (height <= window.side_px and width <= window.side_px):
        logits: Tensor = model(inputs, present_BM)
        return logits
    total: Tensor | None = None
    count = present_BM.new_zeros((height, width), dtype=torch.float32)
    for top, left in product(window.starts(height), window.starts(width)):
        place = (..., slice(top, top + window.side_px), slice(left, left + window.side_px))
        part = model({name: picture[place] for name, picture in inputs.items()}, present_BM)
        if total is None:
            total = part.new_zeros((*part.shape[:2], height, width))
        total[place] += part
        count[place] += 1
    assert total is not None
    return total / count
