"""Procedural surface detail: noise, windows, bricks, slats, sleepers. All anchored to the surface itself.

Every function works on the N pixels of one material; `u` runs along a face and `v` up it (or forward, on
level faces), both in metres, `footprint` is the size of a pixel on the surface in metres. Detail fades as
a pixel grows past it, which keeps far surfaces from flickering between the two poses of the event camera.
"""

from __future__ import annotations

from functools import cache

import numpy as np
from numpy.typing import NDArray

from pipeline.datasets.synthetic.primitives import F32, Material

_SIDE = 256
NOISE: dict[Material, tuple[float, float]] = {
    Material.PLAIN: (0.06, 8.0),
    Material.ASPHALT: (0.22, 14.0),
    Material.PAVING: (0.14, 8.0),
    Material.GRASS: (0.38, 10.0),
    Material.WATER: (0.30, 3.0),
    Material.FACADE: (0.12, 6.0),
    Material.BRICK: (0.14, 8.0),
    Material.FOLIAGE: (0.75, 7.0),
    Material.BALLAST: (0.40, 16.0),
    Material.MARKING: (0.18, 10.0),
    Material.SLATS: (0.10, 8.0),
}
"""Contrast and samples per metre of the noise of each material; smooth ones are left out."""


@cache
def noise_tile() -> F32:
    """(256, 256) tileable noise, zero mean, unit deviation: octaves of smoothed white noise."""
    rng = np.random.default_rng(20_230_517)
    total = np.zeros((_SIDE, _SIDE), np.float32)
    for passes, weight in ((0, 0.5), (2, 1.0), (8, 3.0)):
        octave = rng.standard_normal((_SIDE, _SIDE), dtype=np.float32)
        for _ in range(passes):
            for axis in (0, 1):
                around = np.roll(octave, 1, axis) + np.roll(octave, -1, axis)
                octave = np.float32(0.5) * octave + np.float32(0.25) * around
        total += np.float32(weight) * octave
    return np.asarray((total - total.mean()) / total.std(), np.float32)


@cache
def noise_tables() -> tuple[F32, F32]:
    """Contrast and samples per metre by material number."""
    contrast = np.zeros(len(Material), np.float32)
    rate = np.ones(len(Material), np.float32)
    for material, (amount, per_metre) in NOISE.items():
        contrast[material], rate[material] = amount, per_metre
    return contrast, rate


def noise(u: F32, v: F32) -> F32:
    """The tile at (u, v) in samples, wrapped; any shape."""
    row = np.floor(v).astype(np.int32) & (_SIDE - 1)
    column = np.floor(u).astype(np.int32) & (_SIDE - 1)
    return noise_tile().ravel()[(row << 8) + column]


def cell_hash(column: F32, row: F32, salt: F32 | float = 0.0) -> F32:
    """A value in [0, 1) for every cell of a grid."""
    mixed = np.sin(column * np.float32(12.9898) + row * np.float32(78.233) + salt) * 43758.547
    return np.asarray(mixed - np.floor(mixed), np.float32)


def fade(footprint: F32, detail_m: float) -> F32:
    """1 where pixels are much smaller than the detail, 0 where they are larger."""
    return np.asarray(np.clip(1.5 - footprint / np.float32(detail_m), 0, 1), np.float32)


def windows(u: F32, v: F32) -> tuple[NDArray[np.bool_], F32, F32]:
    """Window panes of a facade: inside a pane, and the pane's column and floor numbers."""
    across, up = u / np.float32(2.1), v / np.float32(2.9)
    column, floor = np.floor(across), np.floor(up)
    inside = np.abs(across - column - 0.5) < 0.29
    inside &= np.abs(up - floor - 0.52) < 0.27
    return inside, column, floor


def bricks(u: F32, v: F32) -> F32:
    """Brightness of courses of blocks with joints, around 1."""
    course = np.floor(v / np.float32(0.32))
    along = u / np.float32(0.7) + 0.5 * (course % 2)
    joint = (along - np.floor(along) < 0.12) | (v / np.float32(0.32) - course < 0.16)
    shade = 0.9 + 0.25 * cell_hash(np.floor(along), course)
    return np.where(joint, np.float32(0.72), shade)


def flags(u: F32, v: F32) -> F32:
    """Brightness of square paving stones with joints, around 1."""
    a, b = u / np.float32(0.9), v / np.float32(0.9)
    joint = (a - np.floor(a) < 0.08) | (b - np.floor(b) < 0.08)
    shade = 0.94 + 0.14 * cell_hash(np.floor(a), np.floor(b), 1.0)
    return np.where(joint, np.float32(0.75), shade)


def slats(u: F32) -> F32:
    """Brightness of upright boards with gaps."""
    along = u / np.float32(0.32)
    return np.where(along - np.floor(along) < 0.3, np.float32(0.3), np.float32(1.1))


def sleepers(v: F32) -> F32:
    """Brightness of the cross-ties of a track, which lie across its forward axis."""
    along = v / np.float32(0.75)
    return np.where(along - np.floor(along) < 0.38, np.float32(1.9), np.float32(0.8))
