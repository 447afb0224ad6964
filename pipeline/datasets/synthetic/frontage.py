"""What lines a street on either side: sidewalk, then houses, a park, water, a railway, a square or a wall.

A side is cut into lots along y; each lot lays its ground and puts its things on it. Lengths are metres,
measured outwards from the kerb.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from pipeline.datasets.deliver_classes import Deliver
from pipeline.datasets.synthetic import objects
from pipeline.datasets.synthetic.dice import Dice
from pipeline.datasets.synthetic.primitives import Color, Material, Shape, WorldBuilder

GRASS: Color = (0.13, 0.20, 0.06)
SOIL: Color = (0.24, 0.17, 0.10)
PAVING: Color = (0.30, 0.29, 0.27)
PLAZA: Color = (0.42, 0.34, 0.27)
RIVER: Color = (0.03, 0.08, 0.10)
STONE: Color = (0.34, 0.32, 0.28)
BRICK: Color = (0.30, 0.12, 0.08)
FACADES: tuple[Color, ...] = (
    (0.52, 0.46, 0.36), (0.40, 0.20, 0.14), (0.55, 0.52, 0.48), (0.34, 0.36, 0.38),
    (0.58, 0.44, 0.22), (0.30, 0.33, 0.28), (0.48, 0.34, 0.30),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Lot:
    """A stretch of one side of the street: `side` -1 is left, `start` the distance from the centre."""

    side: int
    start: float
    near: float
    far: float

    def x(self, outwards: float) -> float:
        """World x of a point `outwards` metres beyond the lot's front."""
        return self.side * (self.start + outwards)

    def strip(self, first: float, last: float) -> tuple[float, float]:
        """World x of a strip between two distances from the front."""
        return self.x(first), self.x(last)

    @property
    def length(self) -> float:
        """Metres along the street."""
        return self.far - self.near

    def ground(
        self, world: WorldBuilder, label: Deliver, depth: float, material: Material, color: Color
    ) -> None:
        """Cover the lot's first `depth` metres."""
        world.slab(label, self.strip(0, depth), (self.near, self.far), 0.02, material, color)


def houses(world: WorldBuilder, dice: Dice, lot: Lot) -> None:
    """One or two buildings, a few metres behind the sidewalk at most."""
    lot.ground(world, Deliver.SIDEWALK, 3.0, Material.PAVING, PAVING)
    setback = dice.between(0.0, 1.2)
    cut = lot.near + lot.length * dice.between(0.4, 0.6)
    parts = [(lot.near, lot.far)] if lot.length < 14 else [(lot.near, cut), (cut, lot.far)]
    for near, far in parts:
        far -= dice.pick((0.0, 0.0, 0.8))
        front, height = setback + dice.between(0, 0.5), dice.between(8.0, 24.0)
        color = dice.pick(FACADES)
        block = lot.strip(front, front + 9)
        world.slab(Deliver.BUILDING, block, (near, far), height, Material.FACADE, color)
        roof = lot.strip(front - 0.25, front + 8)
        dark = (color[0] * 0.5, color[1] * 0.5, color[2] * 0.5)
        world.slab(Deliver.BUILDING, roof, (near, far), height + 0.35, Material.PLAIN, dark, height)


def park(world: WorldBuilder, dice: Dice, lot: Lot) -> None:
    """Grass or soil with trees, shrubs and a hedge or fence."""
    color = GRASS if dice.chance(0.7) else SOIL
    lot.ground(world, Deliver.TERRAIN, 25, Material.GRASS, color)
    y = lot.near + 1.5
    while y < lot.far:
        plant = dice.pick((objects.tree, objects.tree, objects.bush))
        plant(world, dice, lot.x(dice.between(1.2, 7.0)), y)
        y += dice.between(3.0, 5.5)
    boundary = dice.weighted({"fence": 0.45, "hedge": 0.2, "open": 0.35})
    if boundary == "fence":
        fence(world, dice, lot, 0.2)
    elif boundary == "hedge":
        world.slab(
            Deliver.VEGETATION, lot.strip(0.3, 1.2), (lot.near, lot.far), dice.between(0.8, 1.4),
            Material.FOLIAGE, dice.pick(objects.LEAVES),
        )  # fmt: skip
    _backdrop(world, dice, lot, dice.between(14, 22))


def water(world: WorldBuilder, dice: Dice, lot: Lot) -> None:
    """A canal behind a strip of grass or a stone edge, with the far bank."""
    bank, width = dice.between(0.3, 1.2), dice.between(10, 16)
    lot.ground(world, Deliver.TERRAIN, bank, Material.GRASS, GRASS)
    span = (lot.near, lot.far)
    world.slab(Deliver.WATER, lot.strip(bank, width), span, 0.012, Material.WATER, RIVER)
    world.slab(Deliver.WALL, lot.strip(width, width + 0.5), span, 0.9, Material.BRICK, STONE)
    far = lot.strip(width + 0.5, width + 14)
    world.slab(Deliver.TERRAIN, far, span, 0.7, Material.GRASS, GRASS)
    if dice.chance(0.12):
        fence(world, dice, lot, 0.15)
    _backdrop(world, dice, lot, width + 4)


def railway(world: WorldBuilder, dice: Dice, lot: Lot) -> None:
    """One or two tracks on ballast, sometimes fenced off, with a wall or trees behind."""
    lot.ground(world, Deliver.TERRAIN, 16, Material.GRASS, SOIL)
    num_tracks = dice.pick((1, 2))
    for number in range(num_tracks):
        track(world, lot.strip(0.8 + 4.0 * number, 4.0 + 4.0 * number), (lot.near, lot.far))
    behind = 1.4 + 4.0 * num_tracks
    if dice.chance(0.5):
        strip = lot.strip(behind, behind + 0.3)
        height = dice.between(1.8, 3.0)
        world.slab(Deliver.WALL, strip, (lot.near, lot.far), height, Material.BRICK, STONE)
    else:
        fence(world, dice, lot, behind)
    _backdrop(world, dice, lot, behind + 3)


def track(world: WorldBuilder, x: tuple[float, float], y: tuple[float, float]) -> None:
    """A rail track: a bed with sleepers and two rails; x spans the bed."""
    world.slab(Deliver.RAIL_TRACK, x, y, 0.06, Material.BALLAST, (0.20, 0.17, 0.15))
    middle = (x[0] + x[1]) / 2
    for offset in (-0.75, 0.75):
        rail = (middle + offset - 0.06, middle + offset + 0.06)
        world.slab(Deliver.RAIL_TRACK, rail, y, 0.16, Material.PAINT, (0.42, 0.40, 0.38))


def square(world: WorldBuilder, dice: Dice, lot: Lot) -> None:
    """An open paved place with stalls, benches, a fountain and people, closed by a building."""
    lot.ground(world, Deliver.GROUND, 13, Material.PAVING, PLAZA)
    y = lot.near + 1.2
    while y < lot.far - 1:
        x = lot.x(dice.between(1.0, 4.5))
        piece = dice.weighted(
            {"stall": 0.42, "fountain": 0.14, "bench": 0.16, "bins": 0.12, "crowd": 0.16}
        )
        if piece == "stall":
            objects.stall(world, dice, x, y)
        elif piece == "fountain":
            objects.fountain(world, dice, x + lot.side * 1.5, y)
        elif piece == "bench":
            objects.bench(world, dice, x, y, lot.side)
        elif piece == "bins":
            objects.trolley(world, dice, x, y)
        else:
            for _ in range(2):
                objects.pedestrian(world, dice, x + dice.between(-1, 1), y, dice.between(0, 6), 0.6)
        y += dice.between(2.4, 4.5)
    span, color = (lot.near, lot.far), dice.pick(FACADES)
    height = dice.between(7, 16)
    world.slab(Deliver.BUILDING, lot.strip(12, 22), span, height, Material.FACADE, color)


def walled(world: WorldBuilder, dice: Dice, lot: Lot) -> None:
    """A free-standing wall with trees looking over it."""
    lot.ground(world, Deliver.TERRAIN, 20, Material.GRASS, GRASS)
    front, color = dice.between(0.1, 0.8), dice.pick((BRICK, STONE, PAVING))
    strip, height = lot.strip(front, front + 0.35), dice.between(1.8, 3.2)
    world.slab(Deliver.WALL, strip, (lot.near, lot.far), height, Material.BRICK, color)
    for _ in range(int(lot.length / 6)):
        x = lot.x(front + dice.between(1.8, 4.5))
        objects.tree(world, dice, x, dice.between(lot.near, lot.far))
    _backdrop(world, dice, lot, dice.between(9, 14))


def fence(world: WorldBuilder, dice: Dice, lot: Lot, outwards: float) -> None:
    """A slatted fence along the lot."""
    color = dice.pick(((0.28, 0.17, 0.09), (0.10, 0.12, 0.12), (0.55, 0.53, 0.50)))
    strip, height = lot.strip(outwards, outwards + 0.08), dice.between(1.1, 1.9)
    world.slab(Deliver.FENCE, strip, (lot.near, lot.far), height, Material.SLATS, color)


def guard_rail(world: WorldBuilder, side: int, x: float, y: tuple[float, float]) -> None:
    """A steel crash barrier on posts along the road's edge."""
    strip = (x, x + side * 0.09)
    steel = (0.45, 0.46, 0.47)
    world.slab(Deliver.GROUND_RAIL, strip, y, 0.86, Material.PAINT, steel, low=0.36)
    posts = world.thing(Deliver.GROUND_RAIL, x + side * 0.15, 0)
    forward = y[0] + 1
    while forward < min(y[1], 30):
        posts.add(Shape.BOX, 0, forward, 0, 0.82, 0.06, 0.06, Material.PLAIN, (0.30, 0.30, 0.30))
        forward += 2.6


def _backdrop(world: WorldBuilder, dice: Dice, lot: Lot, outwards: float) -> None:
    """Close the view behind an open lot with a tree belt or a row of houses."""
    span = (lot.near, lot.far)
    strip, height = lot.strip(outwards, outwards + 8), dice.between(5, 11)
    if dice.chance(0.5):
        leaves = dice.pick(objects.LEAVES)
        world.slab(Deliver.VEGETATION, strip, span, height, Material.FOLIAGE, leaves)
    else:
        facade = dice.pick(FACADES)
        world.slab(Deliver.BUILDING, strip, span, height + 2, Material.FACADE, facade)


FRONTAGES: dict[str, Callable[[WorldBuilder, Dice, Lot], None]] = {
    "houses": houses,
    "park": park,
    "water": water,
    "railway": railway,
    "square": square,
    "wall": walled,
}
