"""The world layout: from one random stream to a street with everything on it, and how we drive through it.

The camera stands at the origin of y in a lane of a street along +y (right-hand traffic). The same
stream always gives the same world, whatever the weather.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from pipeline.datasets.deliver_classes import Deliver
from pipeline.datasets.synthetic import frontage, objects
from pipeline.datasets.synthetic.dice import Dice
from pipeline.datasets.synthetic.primitives import F32, Material, Primitives, WorldBuilder
from pipeline.datasets.synthetic.raycast import Lens, Pose

LANE_M = 2.9
BEHIND_M = -6.0
FAR_M = 75.0
ASPHALT = (0.085, 0.085, 0.09)
PAINT = (0.72, 0.72, 0.70)


@dataclass(frozen=True, slots=True)
class World:
    """A street, its lamps, and the camera's place and motion in it."""

    primitives: Primitives
    lamps: F32
    """(K, 4) x, y, z in metres and relative strength of the street lamps."""
    camera: Pose
    view_deg: float
    """Horizontal field of view."""
    horizon: float
    """Row of the horizon as a share of the image's height, from the top."""
    speed: float
    """Metres per second along the camera's heading."""
    turn: float
    """Radians per second, clockwise."""

    def lens(self, size_px: int) -> Lens:
        """The camera's lens for square images of this size."""
        return Lens.from_view(size_px, self.view_deg, self.horizon)

    def camera_at(self, seconds: float) -> Pose:
        """Where the moving camera is `seconds` after the image (before it, when negative)."""
        start, run = self.camera, self.speed * seconds
        return Pose(
            start.x + run * math.sin(start.heading),
            start.y + run * math.cos(start.heading),
            start.z,
            start.heading + self.turn * seconds,
        )


@dataclass(frozen=True, slots=True)
class _Plan:
    """Cross-section and landmarks of the street."""

    median: float
    """Half width of the tram bed in the middle; 0 without one."""
    num_lanes: int
    """Lanes per direction."""
    parking: dict[int, float]
    """Width of the parking strip, by side."""
    crossing: tuple[float, float] | None
    """Near and far y of a crossing road."""

    @property
    def half_road(self) -> float:
        """Distance from the centre to the outer lane's edge."""
        return self.median + self.num_lanes * LANE_M

    def kerb(self, side: int) -> float:
        """Distance from the centre to the kerb."""
        return self.half_road + self.parking[side]

    def lane(self, number: int) -> float:
        """Distance from the centre to the middle of a lane, counted outwards."""
        return self.median + (number + 0.5) * LANE_M


def build_world(rng: np.random.Generator) -> World:
    """Draw a street from the generator."""
    dice, world = Dice(rng), WorldBuilder()
    plan = _draw_plan(dice)
    ego = dice.pick(range(plan.num_lanes))
    _lay_road(world, dice, plan)
    for side in (-1, 1):
        _lay_side(world, dice, plan, side)
    if plan.crossing:
        _lay_crossing(world, dice, plan, plan.crossing)
    elif dice.chance(0.4):
        span = (-plan.kerb(-1) - 0.6, plan.kerb(1) + 0.6)
        objects.sign_gantry(world, dice, span, dice.between(11, 22))
    if dice.chance(0.22):
        _lay_bridge(world, dice, plan)
    _put_traffic(world, dice, plan, ego)
    _close_street(world, dice)
    moving = not dice.chance(0.12)
    return World(
        primitives=world.build(),
        lamps=np.array(world.lamps, np.float32).reshape(-1, 4),
        camera=Pose(
            plan.lane(ego) + dice.between(-0.4, 0.6), 0.0, dice.between(1.8, 2.5),
            dice.sign() * (dice.between(0.25, 0.6) if dice.chance(0.52) else dice.between(0, 0.2)),
        ),
        view_deg=dice.between(70, 75),
        horizon=dice.between(0.40, 0.52),
        speed=dice.between(4, 14) if moving else 0.0,
        turn=dice.between(-0.25, 0.25) if moving else 0.0,
    )  # fmt: skip


def _draw_plan(dice: Dice) -> _Plan:
    near = dice.between(8, 22)
    return _Plan(
        median=1.7 if dice.chance(0.14) else 0.0,
        num_lanes=2 if dice.chance(0.16) else 1,
        parking={side: 2.1 if dice.chance(0.3) else 0.0 for side in (-1, 1)},
        crossing=(near, near + dice.between(7, 10)) if dice.chance(0.55) else None,
    )


def _lay_road(world: WorldBuilder, dice: Dice, plan: _Plan) -> None:
    """Base ground, carriageway, lane marks and, at times, a tram in the middle."""
    base = dice.pick((Deliver.TERRAIN, Deliver.TERRAIN, Deliver.GROUND))
    material, color = (
        (Material.GRASS, frontage.GRASS)
        if base is Deliver.TERRAIN
        else (Material.PAVING, frontage.PAVING)
    )
    world.slab(base, (-300, 300), (-20, 500), -0.01, material, color)
    span = (BEHIND_M, FAR_M + 40)
    road = (-plan.kerb(-1), plan.kerb(1))
    world.slab(Deliver.ROAD, road, span, 0.0, Material.ASPHALT, ASPHALT)
    for side in (-1, 1):
        _line(world, side * (plan.half_road - 0.15), span)
        for number in range(1, plan.num_lanes):
            _dashes(world, dice, side * (plan.median + number * LANE_M), plan)
    if plan.median:
        frontage.track(world, (-plan.median, plan.median), span)
    elif dice.chance(0.5):
        _line(world, -0.14, span)
        _line(world, 0.14, span)
    else:
        _dashes(world, dice, 0.0, plan)


def _line(world: WorldBuilder, x: float, y: tuple[float, float]) -> None:
    world.slab(Deliver.ROAD_LINE, (x - 0.08, x + 0.08), y, 0.01, Material.MARKING, PAINT)


def _dashes(world: WorldBuilder, dice: Dice, x: float, plan: _Plan) -> None:
    y = dice.between(0, 3)
    while y < 40:
        _line(world, x, (y, y + 2.6))
        y += 5.2


def _spans(dice: Dice, plan: _Plan) -> list[tuple[float, float]]:
    """Lots along one side, leaving out the crossing road."""
    spans, y = [], BEHIND_M
    stops = [*(plan.crossing or ()), FAR_M]
    for number, stop in enumerate(stops):
        if number == 1:
            y = stop
            continue
        while y < stop - 0.5:
            far = min(y + dice.between(10, 22), stop)
            far = stop if stop - far < 5 else far
            spans.append((y, far))
            y = far
    return spans


def _lay_side(world: WorldBuilder, dice: Dice, plan: _Plan, side: int) -> None:
    theme = dice.weighted(
        {"mixed": 0.44, "water": 0.19, "railway": 0.12, "park": 0.07, "square": 0.11, "wall": 0.07}
    )
    narrow = theme != "mixed" and dice.chance(0.6)
    kerb, walk = plan.kerb(side), 0.9 if narrow else dice.between(1.5, 2.6)
    barrier = not plan.parking[side] and dice.chance(0.42)
    for near, far in _spans(dice, plan):
        kind = theme
        if theme == "mixed":
            kind = dice.weighted({"houses": 0.52, "park": 0.16, "square": 0.16, "wall": 0.16})
        pavement = (side * kerb, side * (kerb + walk))
        world.slab(Deliver.SIDEWALK, pavement, (near, far), 0.12, Material.PAVING, frontage.PAVING)
        frontage.FRONTAGES[kind](world, dice, frontage.Lot(side, kerb + walk, near, far))
        if barrier:
            frontage.guard_rail(world, side, side * (kerb + 0.15), (near, far))
    _furnish(world, dice, plan, side, walk)
    if plan.parking[side]:
        _park_vehicles(world, dice, plan, side)


_FURNITURE: dict[str, float] = {
    "lamp": 1.6, "pole": 0.9, "bollards": 0.9, "sign": 2.0, "walker": 2.6, "bike": 2.6, "bench": 0.9,
    "stop": 0.9, "hydrant": 1.3, "bins": 1.9, "trolley": 0.9, "tree": 1.8, "stall": 1.0,
}  # fmt: skip


def _furnish(world: WorldBuilder, dice: Dice, plan: _Plan, side: int, walk: float) -> None:
    """Things on the sidewalk, slot by slot, so that nothing stands inside something else."""
    y = dice.between(2.6, 4.5)
    while y < 38:
        crossed = plan.crossing and plan.crossing[0] - 1.5 < y < plan.crossing[1] + 1
        if not crossed:
            _furnish_slot(world, dice, plan.kerb(side), side, walk, y)
        y += dice.between(2.4, 4.2)


def _furnish_slot(
    world: WorldBuilder, dice: Dice, kerb: float, side: int, walk: float, y: float
) -> None:
    outer = side * (kerb + 0.45)
    inner = side * (kerb + walk - 0.5)
    kind = dice.weighted(_FURNITURE)
    if kind == "lamp":
        objects.street_lamp(world, dice, outer, y, side)
    elif kind == "walker":
        for _ in range(dice.pick((1, 2))):
            x = side * (kerb + dice.between(0.4, walk - 0.3))
            toward = dice.pick((0.0, math.pi))
            objects.pedestrian(world, dice, x, y + dice.between(-0.6, 0.6), toward, 1.4)
    elif kind == "bike":
        turned = dice.between(-0.7, 0.7)
        objects.two_wheeler(world, dice, outer, y, turned, 0.0, ridden=False)
    elif kind == "bench":
        objects.bench(world, dice, inner, y, side)
    elif kind == "stop":
        objects.bus_stop(world, dice, inner, y, side)
    else:
        piece, x = {
            "pole": (objects.utility_pole, outer),
            "bollards": (objects.bollards, outer),
            "sign": (objects.traffic_sign, outer),
            "hydrant": (objects.hydrant, inner),
            "bins": (objects.bins, inner),
            "trolley": (objects.trolley, inner),
            "tree": (objects.tree if y > 6 else objects.hydrant, inner),
            "stall": (objects.stall, inner),
        }[kind]
        piece(world, dice, x, y)


def _park_vehicles(world: WorldBuilder, dice: Dice, plan: _Plan, side: int) -> None:
    x = side * (plan.half_road + 1.1)
    heading = 0.0 if side > 0 else math.pi
    y = dice.between(3.5, 8)
    while y < 45:
        blocked = plan.crossing and plan.crossing[0] - 4 < y < plan.crossing[1] + 4
        if not blocked and dice.chance(0.75):
            _vehicle(world, dice, x, y, heading, 0.0, _PARKED)
        y += dice.between(7, 10)


_PARKED = {"car": 0.6, "two_wheeler": 0.25, "truck": 0.15}
_MOVING = {"car": 0.40, "bus": 0.17, "truck": 0.16, "two_wheeler": 0.27}


def _vehicle(
    world: WorldBuilder,
    dice: Dice,
    x: float,
    y: float,
    heading: float,
    speed: float,
    mix: dict[str, float],
) -> None:
    kind = dice.weighted(mix)
    if kind == "two_wheeler":
        objects.two_wheeler(world, dice, x, y, heading, speed, ridden=speed > 0)
    else:
        build = {"car": objects.car, "bus": objects.bus, "truck": objects.truck}[kind]
        build(world, dice, x, y, heading, speed)


def _put_traffic(world: WorldBuilder, dice: Dice, plan: _Plan, ego: int) -> None:
    """Vehicles ahead of us in our direction, oncoming ones, and some across the junction."""
    for number in range(plan.num_lanes):
        y = dice.between(8, 16) if number == ego else dice.between(4, 16)
        while y < 55:
            if dice.chance(0.75):
                x = plan.lane(number) + dice.between(-0.3, 0.3)
                _vehicle(world, dice, x, y, 0.0, dice.between(3, 13), _MOVING)
            y += dice.between(14, 22)
        y = dice.between(6, 18)
        while y < 60:
            if dice.chance(0.75):
                x = -plan.lane(number) + dice.between(-0.3, 0.3)
                _vehicle(world, dice, x, y, math.pi, dice.between(4, 13), _MOVING)
            y += dice.between(13, 22)


def _lay_crossing(
    world: WorldBuilder, dice: Dice, plan: _Plan, crossing: tuple[float, float]
) -> None:
    """A crossing road with zebra stripes, signals, people and a vehicle driving across."""
    near, far = crossing
    world.slab(Deliver.ROAD, (-80, 80), crossing, 0.004, Material.ASPHALT, ASPHALT)
    x = -plan.kerb(-1) + 0.4
    while x < plan.kerb(1) - 0.4:
        stripe = (x, x + 0.5)
        world.slab(
            Deliver.ROAD_LINE, stripe, (near - 3.4, near - 0.8), 0.014, Material.MARKING, PAINT
        )
        x += 1.0
    state = dice.pick((0, 0, 1, 2))
    for side in (-1, 1):
        if dice.chance(0.85):
            reach = dice.between(2.0, 3.2)
            x = side * (plan.kerb(side) + 0.35)
            objects.traffic_light(world, dice, x, near - 0.4, side, state, reach)
    for _ in range(dice.pick((0, 1, 2, 2))):
        x = dice.between(-plan.kerb(-1), plan.kerb(1))
        objects.pedestrian(world, dice, x, near - 2, dice.sign() * math.pi / 2, 1.4)
    if dice.chance(0.5):
        side = dice.sign()
        y = (near + far) / 2 - side * (far - near) / 4
        _vehicle(world, dice, dice.between(-7, 7), y, side * math.pi / 2, 7.0, _MOVING)


def _lay_bridge(world: WorldBuilder, dice: Dice, plan: _Plan) -> None:
    """A bridge over the street on four piers."""
    near = dice.between(16, 34)
    span, low = (near, near + dice.between(5, 9)), dice.between(5.2, 6.2)
    concrete = dice.pick((frontage.STONE, frontage.PAVING, frontage.BRICK))
    deck = low + dice.between(1.1, 1.9)
    world.slab(Deliver.BRIDGE, (-60, 60), span, deck, Material.PAVING, concrete, low)
    for side in (-1, 1):
        pier = (side * (plan.kerb(side) + 0.2), side * (plan.kerb(side) + 1.5))
        for y in (span[0] + 0.3, span[1] - 1.5):
            world.slab(Deliver.BRIDGE, pier, (y, y + 1.2), low, Material.PAVING, concrete)
    rail = (span[0] + 0.1, span[0] + 0.2)
    world.slab(Deliver.FENCE, (-60, 60), rail, deck + 1.1, Material.SLATS, objects.STEEL, deck)


def _close_street(world: WorldBuilder, dice: Dice) -> None:
    """A skyline across the far end, so that the street does not run into the sky."""
    x = -90.0
    while x < 90:
        width, near = dice.between(14, 30), FAR_M + dice.between(3, 25)
        block = ((x, x + width), (near, near + 10), dice.between(5, 19))
        if dice.chance(0.65):
            world.slab(Deliver.BUILDING, *block, Material.FACADE, dice.pick(frontage.FACADES))
        else:
            world.slab(Deliver.VEGETATION, *block, Material.FOLIAGE, dice.pick(objects.LEAVES))
        x += width
