"""Sun shadows: a height map on the ground that says below which height a sun ray is blocked.

All points of one sun ray share the place where that ray meets the ground, so one number per ground cell is
a complete (orthographic) shadow map. Boxes along the street split into an x and a y part as in `raycast`;
turned boxes cast the shadow of the ellipse that fills them. The method is our own.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pipeline.datasets.synthetic.primitives import F32, Primitives, Shape

CELL_M = 0.3
_X0, _Y0, _NUM_X, _NUM_Y = -24.0, -6.0, 160, 170
_LOWEST_M, _TALL_M, _LEAST_M3 = 0.3, 1.8, 0.12
"""Things that are flatter, or both lower and smaller than this, cast no shadow worth the time."""
_BIAS_M = 0.5
"""A cell's height error at a steep sun; less would shade lit faces."""


@dataclass(frozen=True, slots=True)
class Sun:
    """Unit horizontal direction towards the sun, and the tangent of its elevation."""

    x: float
    y: float
    slope: float

    @property
    def direction(self) -> tuple[float, float, float]:
        """Unit vector towards the sun."""
        length = (1 + self.slope**2) ** 0.5
        return self.x / length, self.y / length, self.slope / length


@dataclass(frozen=True, slots=True)
class ShadowMap:
    """(Y, X) metres: a point of the sun ray through a cell is dark when it is lower than this."""

    sun: Sun
    height: F32

    def lit(self, x: F32, y: F32, z: F32) -> F32:
        """1 where the sun reaches a point, else 0; any shape."""
        column = ((x - z * (self.sun.x / self.sun.slope) - _X0) / CELL_M).astype(np.int32)
        row = ((y - z * (self.sun.y / self.sun.slope) - _Y0) / CELL_M).astype(np.int32)
        inside = (column >= 0) & (column < _NUM_X) & (row >= 0) & (row < _NUM_Y)
        cell = np.where(inside, row * _NUM_X + column, 0)
        dark = inside & (z + _BIAS_M < self.height.ravel()[cell])
        return np.where(dark, np.float32(0), np.float32(1))


def no_shadows(sun: Sun) -> ShadowMap:
    """The map of an empty world, for weathers that hide the sun."""
    return ShadowMap(sun, np.zeros((_NUM_Y, _NUM_X), np.float32))


def cast_shadows(table: Primitives, sun: Sun) -> ShadowMap:
    """Draw every primitive of some height into the map."""
    shadows = no_shadows(sun)
    rise = table.high - np.maximum(table.low, 0)
    volume = 4 * table.half[:, 0] * table.half[:, 1] * rise
    casts = (table.high > _LOWEST_M) & ((rise > _TALL_M) | (volume > _LEAST_M3))
    casts[-1] = False
    for index in np.flatnonzero(casts).tolist():
        _draw(shadows.height, table, index, sun)
    return shadows


def _draw(height: F32, table: Primitives, index: int, sun: Sun) -> None:
    x, y = table.center[index].tolist()
    half_x, half_y = table.half[index].tolist()
    low, high = max(float(table.low[index]), 0.0), float(table.high[index])
    turned = abs(np.sin(table.heading[index])) > 1e-3
    if turned:
        half_x = half_y = (half_x * half_y) ** 0.5
    reach = high / sun.slope
    columns = _cells(x - half_x, x + half_x, -sun.x * reach, _X0, _NUM_X)
    rows = _cells(y - half_y, y + half_y, -sun.y * reach, _Y0, _NUM_Y)
    if columns.start >= columns.stop or rows.start >= rows.stop:
        return
    gx = _centres(columns, _X0 - x)
    gy = _centres(rows, _Y0 - y)
    round_ = turned or table.shape[index] != Shape.BOX
    interval = _ellipse if round_ else _rectangle
    enter, leave = interval(gx[None, :], gy[:, None], half_x, half_y, sun)
    top = np.minimum(leave, reach)
    blocked = np.maximum(enter, low / sun.slope) < top
    window = height[rows, columns]
    np.maximum(window, np.where(blocked, top * sun.slope, 0), out=window)


def _cells(low: float, high: float, shift: float, origin: float, count: int) -> slice:
    """Cells that a shadow can touch along one axis."""
    first = int((low + min(shift, 0.0) - origin) / CELL_M)
    last = int((high + max(shift, 0.0) - origin) / CELL_M) + 1
    return slice(max(first, 0), min(last, count))


def _centres(cells: slice, origin: float) -> F32:
    """Cell centres in metres from `origin` of the grid."""
    centres = np.arange(cells.start, cells.stop, dtype=np.float32) + np.float32(0.5)
    return centres * np.float32(CELL_M) + np.float32(origin)


def _rectangle(x: F32, y: F32, half_x: float, half_y: float, sun: Sun) -> tuple[F32, F32]:
    """Distances at which rays from ground cells towards the sun enter and leave a rectangle."""
    spans = []
    for centre, half, slope in ((x, half_x, sun.x), (y, half_y, sun.y)):
        slope = slope if abs(slope) > 1e-4 else 1e-4
        one, two = (-half - centre) / slope, (half - centre) / slope
        spans.append((np.minimum(one, two), np.maximum(one, two)))
    return np.maximum(spans[0][0], spans[1][0]), np.minimum(spans[0][1], spans[1][1])


def _ellipse(x: F32, y: F32, half_x: float, half_y: float, sun: Sun) -> tuple[F32, F32]:
    """The same for an ellipse; an empty interval where rays miss it."""
    px, py, dx, dy = x / half_x, y / half_y, sun.x / half_x, sun.y / half_y
    square = dx * dx + dy * dy
    middle = -(px * dx + py * dy) / square
    spread = middle * middle - (px * px + py * py - 1) / square
    reach = np.sqrt(np.clip(spread, 0, None))
    leave = np.where(spread > 0, middle + reach, np.float32(-np.inf))
    return np.asarray(middle - reach, np.float32), leave
