"""One vectorised ray cast: which primitive every pixel sees, and at which depth.

The camera keeps its axis level (pitch is a shift of the horizon row), and all primitives stand upright.
So the horizontal part of every ray depends on its column alone and the vertical part on its row alone:
interval tests run on (P, W) and (P, H) arrays for all primitives at once, and only the small screen
window of each primitive needs a two-dimensional test. The method is our own.

Legend: P primitives, H W space.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.datasets.synthetic.primitives import F32, Primitives, Shape

NEAR_M = 0.25
"""Nothing closer than this is seen."""


@dataclass(frozen=True, slots=True)
class Lens:
    """A square pinhole camera: focal length and horizon row in pixels."""

    size_px: int
    focal_px: float
    horizon_px: float

    @classmethod
    def from_view(cls, size_px: int, view_deg: float, horizon: float) -> Lens:
        """From the horizontal field of view in degrees and the horizon as a share of the height."""
        focal = size_px / 2 / math.tan(math.radians(view_deg) / 2)
        return cls(size_px, focal, horizon * size_px)

    def columns(self) -> F32:
        """(W,) rightward slope of the ray through each column."""
        centres = np.arange(self.size_px, dtype=np.float32) + 0.5
        return (centres - np.float32(self.size_px / 2)) / np.float32(self.focal_px)

    def rows(self) -> F32:
        """(H,) upward slope of the ray through each row, never exactly zero."""
        centres = np.arange(self.size_px, dtype=np.float32) + 0.5
        slopes = (np.float32(self.horizon_px) - centres) / np.float32(self.focal_px)
        return np.where(np.abs(slopes) < 1e-5, np.float32(1e-5), slopes)


@dataclass(frozen=True, slots=True)
class Pose:
    """Where the camera stands (metres) and looks (radians clockwise from +y)."""

    x: float
    y: float
    z: float
    heading: float

    def directions(self, lens: Lens) -> tuple[F32, F32]:
        """(W,) world x and y of the rays whose camera-forward component is 1."""
        right = lens.columns()
        sin, cos = np.float32(math.sin(self.heading)), np.float32(math.cos(self.heading))
        return sin + right * cos, cos - right * sin


@dataclass(frozen=True, slots=True)
class Hits:
    """The first surface along every ray."""

    depth: F32
    """(H, W) metres along the camera axis; infinite where a ray meets nothing."""
    primitive: NDArray[np.int16]
    """(H, W) row of the table; the last row (the sky) where a ray meets nothing."""


@dataclass(frozen=True, slots=True)
class _Rays:
    """Camera rays in every primitive's own axes."""

    origin: F32
    """(P, 3)"""
    right: F32
    """(P, W)"""
    forward: F32
    """(P, W)"""
    up: F32
    """(H,)"""


def cast(table: Primitives, lens: Lens, pose: Pose) -> Hits:
    """First hit of every pixel's ray, to float32 precision; the sky row of `table` is left out."""
    rays = _local_rays(table, lens, pose)
    columns, rows = _column_intervals(table, rays), _row_intervals(table, rays)
    windows = _windows(columns, rows)
    shape = (lens.size_px, lens.size_px)
    hits = Hits(np.full(shape, np.inf, np.float32), np.full(shape, len(table.low) - 1, np.int16))
    ellipsoid = table.shape[:-1] == Shape.ELLIPSOID
    _draw_upright(hits, columns, rows, windows, np.flatnonzero(~ellipsoid))
    with np.errstate(invalid="ignore"):
        _draw_ellipsoids(hits, table, rays, windows, np.flatnonzero(ellipsoid))
    return hits


def _local_rays(table: Primitives, lens: Lens, pose: Pose) -> _Rays:
    body = slice(0, -1)
    sin, cos = np.sin(table.heading[body]), np.cos(table.heading[body])
    x = np.float32(pose.x) - table.center[body, 0]
    y = np.float32(pose.y) - table.center[body, 1]
    z = np.float32(pose.z) - (table.low[body] + table.high[body]) / 2
    turn = (np.float32(pose.heading) - table.heading[body])[:, None]
    slope = lens.columns()
    return _Rays(
        origin=np.stack([cos * x - sin * y, sin * x + cos * y, z], axis=1),
        right=np.sin(turn) + slope * np.cos(turn),
        forward=np.cos(turn) - slope * np.sin(turn),
        up=lens.rows(),
    )


_Interval = tuple[F32, F32]


def _slab(origin: F32, slope: F32, half: F32) -> _Interval:
    """Where rays are between -half and +half on one axis; (P, 1) against (P, N) or (N,)."""
    slope = np.where(np.abs(slope) < 1e-7, np.float32(1e-7), slope)
    one, two = (-half - origin) / slope, (half - origin) / slope
    return np.minimum(one, two), np.maximum(one, two)


def _column_intervals(table: Primitives, rays: _Rays) -> _Interval:
    """(P, W) depths at which columns enter (`NEAR_M` at least) and leave footprints; else enter > leave."""
    enter, leave = np.empty_like(rays.right), np.empty_like(rays.right)
    is_box = table.shape[:-1] == Shape.BOX
    for chosen, footprint in ((is_box, _rectangle), (~is_box, _ellipse)):
        enter[chosen], leave[chosen] = footprint(
            rays.origin[chosen], rays.right[chosen], rays.forward[chosen], table.half[:-1][chosen]
        )
    return np.maximum(enter, np.float32(NEAR_M)), leave


def _rectangle(origin: F32, right: F32, forward: F32, half: F32) -> _Interval:
    first = _slab(origin[:, 0:1], right, half[:, 0:1])
    second = _slab(origin[:, 1:2], forward, half[:, 1:2])
    return np.maximum(first[0], second[0]), np.minimum(first[1], second[1])


def _ellipse(origin: F32, right: F32, forward: F32, half: F32) -> _Interval:
    right, forward = right / half[:, 0:1], forward / half[:, 1:2]
    x, y = origin[:, 0:1] / half[:, 0:1], origin[:, 1:2] / half[:, 1:2]
    square = right * right + forward * forward
    middle = -(x * right + y * forward) / square
    spread = middle * middle - (x * x + y * y - 1) / square
    reach = np.sqrt(np.maximum(spread, 0))
    return np.where(spread > 0, middle - reach, np.inf), np.where(
        spread > 0, middle + reach, -np.inf
    )


def _row_intervals(table: Primitives, rays: _Rays) -> _Interval:
    half = np.float32(0.5) * (table.high[:-1] - table.low[:-1])
    return _slab(rays.origin[:, 2:3], rays.up, half[:, None])


_Window = tuple[slice, slice]


def _windows(columns: _Interval, rows: _Interval) -> list[_Window | None]:
    """Screen rectangle of every primitive; None where it cannot be seen."""
    in_columns = columns[0] < columns[1]
    first = np.where(in_columns, columns[0], np.inf).min(axis=1, keepdims=True)
    last = np.where(in_columns, columns[1], -np.inf).max(axis=1, keepdims=True)
    in_rows = (rows[0] < last) & (rows[1] > first)
    seen = (in_columns.any(axis=1) & in_rows.any(axis=1)).tolist()
    return [
        (slice(r0, r1), slice(c0, c1)) if visible else None
        for visible, r0, r1, c0, c1 in zip(seen, *_spans(in_rows), *_spans(in_columns), strict=True)
    ]


def _spans(inside: NDArray[np.bool_]) -> tuple[list[int], list[int]]:
    """First and one-past-last true position of every row."""
    first = inside.argmax(axis=1)
    last = inside.shape[1] - inside[:, ::-1].argmax(axis=1)
    return first.tolist(), last.tolist()


def _draw_upright(
    hits: Hits,
    columns: _Interval,
    rows: _Interval,
    windows: list[_Window | None],
    which: NDArray[np.intp],
) -> None:
    """Boxes and cylinders: a ray is inside while it is inside the footprint and the height range."""
    for index in which.tolist():
        window = windows[index]
        if window is None:
            continue
        down, across = window
        depth = hits.depth[window]
        enter = np.maximum(rows[0][index, down, None], columns[0][index, across])
        leave = np.minimum(rows[1][index, down, None], columns[1][index, across])
        np.minimum(leave, depth, out=leave)
        hit = enter < leave
        np.copyto(depth, enter, where=hit)
        np.copyto(hits.primitive[window], index, where=hit)


def _draw_ellipsoids(
    hits: Hits,
    table: Primitives,
    rays: _Rays,
    windows: list[_Window | None],
    which: NDArray[np.intp],
) -> None:
    """Quadratic of each ellipsoid; its coefficients are a column term plus a row term.

    Rays that miss have a negative discriminant; their NaN fails both comparisons.
    """
    x, y = (rays.origin[which, axis] / table.half[which, axis] for axis in (0, 1))
    half_z = (table.high[which] - table.low[which]) / 2
    z = rays.origin[which, 2] / half_z
    right = rays.right[which] / table.half[which, 0:1]
    forward = rays.forward[which] / table.half[which, 1:2]
    up = rays.up / half_z[:, None]
    square = (right * right + forward * forward, up * up)
    mixed = (x[:, None] * right + y[:, None] * forward, z[:, None] * up)
    constant = x * x + y * y + z * z - 1
    for row, index in enumerate(which.tolist()):
        window = windows[index]
        if window is None:
            continue
        down, across = window
        depth = hits.depth[window]
        a = square[1][row, down, None] + square[0][row, across]
        b = mixed[1][row, down, None] + mixed[0][row, across]
        enter = (b + np.sqrt(b * b - a * constant[row])) / -a
        hit = enter < depth
        hit &= enter > NEAR_M
        np.copyto(depth, enter, where=hit)
        np.copyto(hits.primitive[window], index, where=hit)
