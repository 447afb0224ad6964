"""Stored views: K square crops and flips of every sample, the same for all of its modalities.

A view is a square crop of the stored image, mirrored or not. Teacher and student both cut it with
`cut`, so they see the same pixels; the embedding of a crop is never approximated from that of the
whole image. A view's box is a function of (key, view number, seed) and the image's size alone: order,
shard, batch and machine have no effect. The target store holds the boxes as well (`view_box`), and the
student uses those.

A box is (5,) float32: top, left, height, width as fractions of the image's height or width, and 1.0
if mirrored. It is drawn in whole pixels: pixel = floor(fraction * pixels + 0.5) recovers them exactly
for images of less than 2^22 pixels a side.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.config.config import Config

VIEW_BOX = "view_box"
"""Name of the boxes' array in a target store."""
BOX_SHAPE = (5,)
VIEWS_VERSION = 1
"""Incremented when the same settings start to give other boxes or other pixels."""


@dataclass(frozen=True, slots=True)
class ViewConfig:
    """How many views a sample has, and how they are drawn."""

    number: int
    """K."""
    seed: int
    scale: tuple[float, float]
    """Least and largest side of the square, as a fraction of the image's shorter side."""

    @classmethod
    def of(cls, config: Config) -> ViewConfig | None:
        """The views of a config; None: the teacher sees whole images."""
        teacher = config.teacher
        if not teacher.views:
            return None
        return cls(teacher.views, teacher.view_seed, teacher.view_scale)

    def identity(self) -> dict[str, Any]:
        """What a view depends on besides the image, JSON-ready (part of fingerprints)."""
        return {
            "version": VIEWS_VERSION,
            "number": self.number,
            "seed": self.seed,
            "scale": list(self.scale),
        }


def view_identity(settings: ViewConfig | None) -> dict[str, Any]:
    """What views add to a tower's identity; empty without views."""
    return {} if settings is None else {"views": settings.identity()}


def view_shapes(
    shapes: Mapping[str, tuple[int, ...]], settings: ViewConfig | None
) -> dict[str, tuple[int, ...]]:
    """Shapes of a sample's rows: with K views a leading K everywhere, and the boxes."""
    if settings is None:
        return dict(shapes)
    stacked = {name: (settings.number, *shape) for name, shape in shapes.items()}
    return stacked | {VIEW_BOX: (settings.number, *BOX_SHAPE)}


def draw_boxes(key: str, height: int, width: int, settings: ViewConfig) -> NDArray[np.float32]:
    """(K, 5) boxes of a sample whose images are `height` x `width` pixels."""
    draws = (_uniform(key, view, settings.seed) for view in range(settings.number))
    return np.stack([_box(uniform, height, width, settings.scale) for uniform in draws])


def _uniform(key: str, view: int, seed: int) -> NDArray[np.float64]:
    """Four numbers in [0, 1): one block of Philox, keyed by the sample, with view and seed as counter."""
    digest = hashlib.sha256(key.encode()).digest()
    philox = np.random.Philox(
        key=np.frombuffer(digest[:16], "<u8").astype(np.uint64),
        counter=np.array([0, 0, view, seed], np.uint64),
    )
    return (philox.random_raw(4) >> np.uint64(11)).astype(np.float64) * 2.0**-53


def _box(
    uniform: NDArray[np.float64], height: int, width: int, scale: tuple[float, float]
) -> NDArray[np.float32]:
    short = min(height, width)
    share = scale[0] + uniform[0] * (scale[1] - scale[0])
    side = min(short, max(1, int(share * short + 0.5)))
    top, left = int(uniform[1] * (height - side + 1)), int(uniform[2] * (width - side + 1))
    shares = [top / height, left / width, side / height, side / width, float(uniform[3] < 0.5)]
    return np.array(shares, np.float32)


def cut(image: NDArray[Any], box: NDArray[np.float32]) -> NDArray[Any]:
    """The stored pixels of a view: (S, S) or (S, S, 3) of an (H, W) or (H, W, 3) image."""
    height, width = image.shape[:2]
    top, left, rows, columns = np.floor(
        box[:4].astype(np.float64) * (height, width, height, width) + 0.5
    ).astype(int)
    window = image[top : top + rows, left : left + columns]
    return np.ascontiguousarray(window[:, ::-1] if box[4] else window)
