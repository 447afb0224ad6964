"""How a stored image is shown to a tower: the named renderings, and which of them a modality gets.

    array = render(stored, spec, "grey_stretched")      # (H, W, 3) uint8
    tower, rendering = tower_input(spec, teacher.towers)

Sensors without a tower of their own go through the image tower, as a rendering to three channels. It
is computed once per stored image, before views are cut and pixel values are made. v: stored value;
0 means "not measured" in every kind with one channel, and is black; whatever was measured is not.

- `as_stored` (rgb, hha, event, lidar_image, aolp, dolp): v. Events keep their polarity colours; the
  tower's own preprocessing repeats one channel and divides 16 bits by 65535.
- `grey_stretched` (thermal, thermal16, nir, nir16, disparity; gray and gray16, so SAR and other single
  bands): 1 + 254 clip((v - p2) / (p98 - p2), 0, 1), with the percentiles of the image's measured values.
- `inverse_depth` (depth): 255 / (1 + d / 5 m), d = v in metres. A distance is the same grey in every image.
- `sparse_range` (lidar): `inverse_depth`, where each point also fills the holes around it, up to 1/224 of
  the image's shorter side; the nearest point wins.
- `metric_depth` (on request): 1 + 254 min(d / max, 1), max being the modality's `max_value`.

An image of one value is mid-grey (128) under `grey_stretched`. A percentile is the smallest measured
value whose share of values up to it reaches 2 % or 98 %, so all of it is integer arithmetic up to the last
rounding. NumPy only: planning imports this file.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import ConfigError
from pipeline.modalities import RENDERINGS, ModalitySpec, Rendering, TowerName, allowed_renderings

RENDERING_VERSION = 1
"""Increment it when the same stored values start to give other renderings."""

PERCENTILES = (2, 98)
HALF_BRIGHTNESS_MM = 5_000.0
"""Distance of half the brightness in `inverse_depth`: between rooms and streets."""
FILLED_SHARE = 1 / 224
"""Reach of a LiDAR point, as a share of the shorter side: one pixel of a tower of 224 pixels."""

Table = NDArray[np.uint8]
"""(256,) or (65536,): stored value to grey."""


def tower_input(
    spec: ModalitySpec,
    towers: Collection[TowerName],
    *,
    tower: TowerName | None = None,
    rendering: Rendering | None = None,
) -> tuple[TowerName, Rendering]:
    """The tower that embeds a modality, of the `towers` that a teacher has, and what it is shown.

    A kind whose tower the teacher lacks goes to the image tower. `tower` and `rendering` are what the
    config says, and win; a `tower` that the teacher lacks is returned for the caller to refuse.
    """
    chosen = tower or spec.tower
    if tower is None and chosen not in towers and "image" in towers:
        chosen = "image"
    default: Rendering = RENDERINGS[spec.kind] if chosen == "image" else "as_stored"
    return chosen, rendering or default


def rendering_identity(rendering: Rendering) -> dict[str, Any]:
    """The part of a store's provenance; empty for stored values, whose identity is the tower's alone."""
    if rendering == "as_stored":
        return {}
    return {"rendering": {"name": rendering, "version": RENDERING_VERSION}}


def render(array: NDArray[Any], spec: ModalitySpec, rendering: Rendering) -> NDArray[Any]:
    """A stored image of `spec` as a tower sees it: (H, W, 3) uint8, or `array` itself `as_stored`.

    Raises `ConfigError` for a rendering that cannot read the kind.
    """
    if rendering == "as_stored":
        return array
    if rendering not in allowed_renderings(spec):
        raise ConfigError(
            f"rendering {rendering!r}: kind {spec.kind!r} has {spec.channels} channel(s) of "
            f"{spec.unit}s; expected one of {', '.join(allowed_renderings(spec))}"
        )
    grey = _table(array, spec, rendering)[array]
    if rendering == "sparse_range":
        grey = _fill_holes(grey)
    return np.repeat(grey[:, :, None], 3, axis=2)


def _table(array: NDArray[Any], spec: ModalitySpec, rendering: Rendering) -> Table:
    if rendering == "grey_stretched":
        return _stretch_table(array)
    millimetres = np.arange(np.iinfo(array.dtype).max + 1, dtype=np.float64)
    if rendering == "metric_depth":
        return _with_hole(1 + 254 * np.minimum(millimetres / spec.max_value, 1.0))
    return _with_hole(255 / (1 + millimetres / HALF_BRIGHTNESS_MM))


def _stretch_table(array: NDArray[Any]) -> Table:
    counts = np.bincount(array.reshape(-1), minlength=np.iinfo(array.dtype).max + 1)
    counts[0] = 0
    cumulative = np.cumsum(counts)
    low, high = (
        int(np.searchsorted(100 * cumulative, share * cumulative[-1])) for share in PERCENTILES
    )
    offsets = np.arange(len(counts), dtype=np.float64) - low
    unit = offsets / (high - low) if high > low else 0.5 + np.sign(offsets)
    return _with_hole(1 + 254 * np.clip(unit, 0.0, 1.0))


def _with_hole(grey: NDArray[np.float64]) -> Table:
    table = np.rint(grey).astype(np.uint8)
    table[0] = 0
    return table


def _fill_holes(grey: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Holes take the brightest, so the nearest, point within reach; measured pixels keep their own."""
    reach = max(1, round(min(grey.shape) * FILLED_SHARE))
    filled = grey
    for axis in (0, 1):
        widths = [(reach, reach) if axis == a else (0, 0) for a in (0, 1)]
        windows = np.lib.stride_tricks.sliding_window_view(
            np.pad(filled, widths), 2 * reach + 1, axis=axis
        )
        filled = windows.max(axis=-1)
    return np.where(grey == 0, filled, grey)
