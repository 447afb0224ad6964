"""The building blocks of a scene: convex primitives in a struct of arrays, and a builder for them.

World axes: x right, y forward along the street, z up, in metres. A heading turns clockwise from +y:
forward is (sin h, cos h), right is (cos h, -sin h). Every primitive stands upright, which is what lets
`raycast` split each test into a column part and a row part.

Legend: P primitives.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

from pipeline.datasets.deliver_classes import Deliver

F32 = NDArray[np.float32]
Color = tuple[float, float, float]


class Shape(IntEnum):
    """Footprints: rectangle or ellipse swept along z, or a full ellipsoid."""

    BOX = 0
    CYLINDER = 1
    ELLIPSOID = 2


class Material(IntEnum):
    """What a surface looks like; `textures` and `shade` read it, no sensor channel carries it."""

    SKY = 0
    PLAIN = 1
    ASPHALT = 2
    PAVING = 3
    GRASS = 4
    WATER = 5
    FACADE = 6
    BRICK = 7
    FOLIAGE = 8
    GLASS = 9
    PAINT = 10
    SLATS = 11
    BALLAST = 12
    MARKING = 13
    COACH = 14


@dataclass(frozen=True, slots=True)
class Primitives:
    """P primitives; the last row stands for the sky and is never cast.

    `low` and `high` bound z; `half` holds the half extents along the local right and forward axes.
    """

    shape: NDArray[np.uint8]
    center: F32
    """(P, 2) x and y in metres."""
    low: F32
    high: F32
    half: F32
    """(P, 2) half extents in metres, local right then forward."""
    heading: F32
    """(P,) radians."""
    velocity: F32
    """(P, 2) metres per second in world axes."""
    label: NDArray[np.uint8]
    material: NDArray[np.uint8]
    color: F32
    """(P, 3) linear reflectance in 0..1."""
    emission: F32
    """(P,) light given off, as a multiple of `color`."""
    instance: NDArray[np.int16]
    """(P,) number of the thing that a primitive is part of."""

    def moved(self, seconds: float) -> Primitives:
        """The same things `seconds` later (or earlier, when negative)."""
        return replace(self, center=self.center + self.velocity * np.float32(seconds))


_UNSEEN = 0.0035
"""Parts whose half size over distance is less are left out: a third of a pixel at 128 px."""
_Row = tuple[float, ...]


class Thing:
    """One object with its own axes: parts are given relative to its position and heading."""

    def __init__(
        self, world: WorldBuilder, label: Deliver, x: float, y: float, heading: float, speed: float
    ) -> None:
        self._world, self._label, self._heading = world, label, heading
        self._x, self._y = x, y
        self._sin, self._cos = math.sin(heading), math.cos(heading)
        self._velocity = (speed * self._sin, speed * self._cos)
        self._instance = world.new_instance()

    @property
    def distance(self) -> float:
        """Metres ahead of the camera, which stands at y = 0."""
        return self._y

    def relabel(self, label: Deliver) -> Thing:
        """Give the parts that follow another class (a rider on a two-wheeler, a lamp on a pole)."""
        self._label = label
        self._instance = self._world.new_instance()
        return self

    def add(
        self,
        shape: Shape,
        right: float,
        forward: float,
        low: float,
        high: float,
        half_right: float,
        half_forward: float,
        material: Material,
        color: Color,
        emission: float = 0.0,
    ) -> None:
        """Add one part; `right` and `forward` place its centre on the thing's own axes.

        Parts that the camera cannot see (behind it, or far smaller than a pixel) are left out.
        """
        x = self._x + right * self._cos + forward * self._sin
        y = self._y - right * self._sin + forward * self._cos
        thin, wide = sorted((half_right, half_forward, (high - low) / 2))[1:]
        if y + wide < 0 or (thin < _UNSEEN * (y - wide) and not emission):
            return
        self._world.rows.append(
            (shape, x, y, low, high, half_right, half_forward, self._heading, *self._velocity,
             self._label, material, *color, emission, self._instance)
        )  # fmt: skip

    def light(self, right: float, forward: float, height: float, strength: float) -> None:
        """Register a point light for the night, next to the lamp that shows it."""
        x = self._x + right * self._cos + forward * self._sin
        y = self._y - right * self._sin + forward * self._cos
        self._world.lamps.append((x, y, height, strength))


class WorldBuilder:
    """Collects rows in plain lists (cheap) and turns them into arrays once."""

    def __init__(self) -> None:
        self.rows: list[_Row] = []
        self.lamps: list[tuple[float, float, float, float]] = []
        self._num_instances = 0

    def new_instance(self) -> int:
        """Number for the next thing."""
        self._num_instances += 1
        return self._num_instances - 1

    def thing(
        self, label: Deliver, x: float, y: float, heading: float = 0.0, speed: float = 0.0
    ) -> Thing:
        """Start an object at (x, y) that faces and moves along `heading`."""
        return Thing(self, label, x, y, heading, speed)

    def slab(
        self,
        label: Deliver,
        x: tuple[float, float],
        y: tuple[float, float],
        high: float,
        material: Material,
        color: Color,
        low: float = -1.0,
    ) -> None:
        """An axis-aligned box between two x and two y values: ground regions, walls, decks."""
        (x0, x1), (y0, y1) = sorted(x), sorted(y)
        self.thing(label, (x0 + x1) / 2, (y0 + y1) / 2).add(
            Shape.BOX, 0.0, 0.0, low, high, (x1 - x0) / 2, (y1 - y0) / 2, material, color
        )

    def build(self) -> Primitives:
        """Close the table with the sky row."""
        self.thing(Deliver.SKY, 0.0, 0.0).add(
            Shape.BOX, 0.0, 0.0, 0.0, 1.0, 1.0, 1.0, Material.SKY, (0.0, 0.0, 0.0)
        )
        table = np.array(self.rows, dtype=np.float32)
        return Primitives(
            shape=table[:, 0].astype(np.uint8),
            center=table[:, 1:3],
            low=table[:, 3],
            high=table[:, 4],
            half=table[:, 5:7],
            heading=table[:, 7],
            velocity=table[:, 8:10],
            label=table[:, 10].astype(np.uint8),
            material=table[:, 11].astype(np.uint8),
            color=table[:, 12:15],
            emission=table[:, 15],
            instance=table[:, 16].astype(np.int16),
        )
