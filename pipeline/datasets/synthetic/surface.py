"""From what the ray cast hit to where that is: positions, normals and texture coordinates, per pixel.

Legend: N pixels in row-major order.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.datasets.synthetic.primitives import F32, Primitives, Shape
from pipeline.datasets.synthetic.raycast import Hits, Lens, Pose

_SKY_DEPTH_M = 1000.0


@dataclass(frozen=True, slots=True)
class Surface:
    """What each of the N pixels looks at; rows of sky pixels hold finite placeholders."""

    primitive: NDArray[np.intp]
    material: NDArray[np.uint8]
    depth: F32
    """Metres along the camera axis."""
    x: F32
    y: F32
    z: F32
    normal: tuple[F32, F32, F32]
    """Unit, in world axes, pointing out of the primitive."""
    u: F32
    """Metres along the face."""
    v: F32
    """Metres up the face, or forward on a level one."""
    footprint: F32
    """Size in metres of one pixel on the surface."""
    right: F32
    """World x of the pixel's ray at camera-forward 1."""
    forward: F32
    """World y of the same ray."""
    up: F32
    """World z of the same ray."""


def locate(table: Primitives, hits: Hits, lens: Lens, pose: Pose) -> Surface:
    """Reconstruct the surface seen by every pixel."""
    shape = (lens.size_px, lens.size_px)
    row, column = lens.rows()[:, None], pose.directions(lens)
    right, forward, up = (
        np.broadcast_to(part, shape).ravel() for part in (column[0], column[1], row)
    )
    which = hits.primitive.ravel().astype(np.intp)
    depth = np.minimum(hits.depth.ravel(), np.float32(_SKY_DEPTH_M))
    x = np.float32(pose.x) + depth * right
    y = np.float32(pose.y) + depth * forward
    z = np.float32(pose.z) + depth * up
    normal, u, v = _on_primitive(table, which, x, y, z)
    facing = np.abs(normal[0] * right + normal[1] * forward + normal[2] * up)
    footprint = depth / (np.float32(lens.focal_px) * np.maximum(facing, np.float32(0.06)))
    return Surface(
        which, table.material[which], depth, x, y, z, normal, u, v, footprint, right, forward, up
    )


def _on_primitive(
    table: Primitives, which: NDArray[np.intp], x: F32, y: F32, z: F32
) -> tuple[tuple[F32, F32, F32], F32, F32]:
    """Normals and texture coordinates: a point lies on the face whose scaled coordinate is largest."""
    sin, cos = np.sin(table.heading)[which], np.cos(table.heading)[which]
    east = x - table.center[:, 0][which]
    north = y - table.center[:, 1][which]
    a, b = cos * east - sin * north, sin * east + cos * north
    c = z - ((table.low + table.high) / 2)[which]
    inverse = (1 / table.half[:, 0], 1 / table.half[:, 1], 2 / (table.high - table.low))
    scale_a, scale_b, scale_c = (part[which] for part in inverse)
    qa, qb, qc = a * scale_a, b * scale_b, c * scale_c
    shape = table.shape[which]
    is_box = shape == Shape.BOX
    aa, bb, cc = qa * qa, qb * qb, qc * qc
    level = (shape != Shape.ELLIPSOID) & (cc >= np.where(is_box, np.maximum(aa, bb), aa + bb))
    on_side = aa > bb
    ga = np.where(level | (is_box & ~on_side), 0, qa * scale_a)
    gb = np.where(level | (is_box & on_side), 0, qb * scale_b)
    gc = np.where((shape != Shape.ELLIPSOID) & ~level, 0, qc * scale_c)
    length = np.sqrt(ga * ga + gb * gb + gc * gc) + np.float32(1e-12)
    normal = ((cos * ga + sin * gb) / length, (cos * gb - sin * ga) / length, gc / length)
    return normal, np.where(on_side & ~level, b, a), np.where(level, b, z)
