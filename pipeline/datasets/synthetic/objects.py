"""Things that stand or move in a street, each put together from a few primitives.

Every function adds one thing (with its own instance number) to a `WorldBuilder` at a place and heading;
lengths are metres, speeds metres per second. Classes follow DELIVER. What a sidewalk is furnished with
shares one signature, so some of these draw nothing from the dice.
"""

from __future__ import annotations

from pipeline.datasets.deliver_classes import Deliver
from pipeline.datasets.synthetic.dice import Dice
from pipeline.datasets.synthetic.primitives import Color, Material, Shape, Thing, WorldBuilder

BOX, CYLINDER, ELLIPSOID = Shape.BOX, Shape.CYLINDER, Shape.ELLIPSOID
PLAIN, PAINT, GLASS, COACH = Material.PLAIN, Material.PAINT, Material.GLASS, Material.COACH
ASPHALT, FOLIAGE, SLATS = Material.ASPHALT, Material.FOLIAGE, Material.SLATS
RUBBER: Color = (0.02, 0.02, 0.022)
PANE: Color = (0.05, 0.065, 0.08)
STEEL: Color = (0.30, 0.31, 0.32)
DARK: Color = (0.06, 0.06, 0.065)
LAMP: Color = (1.0, 0.82, 0.55)
HEADLIGHT: Color = (1.0, 0.95, 0.8)
TAILLIGHT: Color = (0.75, 0.03, 0.02)
CAR_PAINTS: tuple[Color, ...] = (
    (0.62, 0.62, 0.64), (0.05, 0.05, 0.06), (0.45, 0.04, 0.03), (0.04, 0.10, 0.38),
    (0.30, 0.31, 0.33), (0.55, 0.38, 0.05), (0.06, 0.22, 0.12), (0.75, 0.75, 0.72),
)  # fmt: skip
BUS_PAINTS: tuple[Color, ...] = ((0.62, 0.06, 0.04), (0.70, 0.50, 0.04), (0.05, 0.30, 0.50))
CLOTHES: tuple[Color, ...] = (
    (0.55, 0.08, 0.06), (0.08, 0.14, 0.45), (0.65, 0.60, 0.50), (0.05, 0.05, 0.06),
    (0.55, 0.42, 0.05), (0.10, 0.32, 0.16), (0.45, 0.12, 0.35),
)  # fmt: skip
LEAVES: tuple[Color, ...] = ((0.11, 0.22, 0.04), (0.07, 0.17, 0.05), (0.19, 0.24, 0.04))


_WHEELS_SEEN_M = 26.0


def _wheels(body: Thing, half_width: float, axles: tuple[float, ...], radius: float) -> None:
    if body.distance > _WHEELS_SEEN_M:
        return
    for forward in axles:
        for right in (-half_width, half_width):
            body.add(ELLIPSOID, right, forward, 0, 2 * radius, 0.12, radius, PLAIN, RUBBER)


def _lights(body: Thing, half_width: float, half_length: float, height: float) -> None:
    for right in (-half_width, half_width):
        for forward, color, strength in ((1, HEADLIGHT, 2.2), (-1, TAILLIGHT, 1.6)):
            body.add(
                BOX, right, forward * half_length, height, height + 0.16, 0.17, 0.03,
                PLAIN, color, strength,
            )  # fmt: skip


def _contact_shadow(
    world: WorldBuilder, body: Thing, half_width: float, half_length: float
) -> None:
    """A dark patch of road below a vehicle; without it things float under a flat sky."""
    body.relabel(Deliver.ROAD)
    body.add(BOX, 0, 0, -1, 0.021, half_width, half_length, ASPHALT, (0.018, 0.018, 0.018))


def car(world: WorldBuilder, dice: Dice, x: float, y: float, heading: float, speed: float) -> None:
    """A saloon, hatchback or van: body, glass cabin with a roof, wheels, lights."""
    body = world.thing(Deliver.CARS, x, y, heading, speed)
    paint, van = dice.pick(CAR_PAINTS), dice.chance(0.25)
    half_length, roof = dice.between(1.95, 2.35), dice.between(1.85, 2.1) if van else 1.48
    cabin, shift = (half_length * 0.78, -0.15) if van else (half_length * 0.52, -0.2)
    body.add(BOX, 0, 0, 0.26, 0.88, 0.9, half_length, PAINT, paint)
    body.add(BOX, 0, shift, 0.88, roof - 0.07, 0.8, cabin, GLASS, PANE)
    body.add(BOX, 0, shift, roof - 0.08, roof, 0.78, cabin * 0.9, PAINT, paint)
    _wheels(body, 0.84, (-half_length * 0.6, half_length * 0.62), 0.33)
    _lights(body, 0.62, half_length, 0.6)
    _contact_shadow(world, body, 0.95, half_length)


def bus(world: WorldBuilder, dice: Dice, x: float, y: float, heading: float, speed: float) -> None:
    """A city bus: one long coach body with a band of windows."""
    body = world.thing(Deliver.BUS, x, y, heading, speed)
    paint, half_length = dice.pick(BUS_PAINTS), dice.between(4.5, 6.0)
    body.add(BOX, 0, 0, 0.35, 3.15, 1.27, half_length, COACH, paint)
    body.add(BOX, 0, 0, 3.15, 3.3, 0.9, half_length * 0.7, PAINT, paint)
    body.add(BOX, 0, half_length, 1.2, 2.6, 1.1, 0.05, GLASS, PANE)
    body.add(BOX, 0, -half_length, 1.6, 2.6, 1.0, 0.05, GLASS, PANE)
    _wheels(body, 1.2, (-half_length * 0.55, half_length * 0.6), 0.48)
    _lights(body, 0.95, half_length + 0.06, 0.75)
    _contact_shadow(world, body, 1.3, half_length)


def truck(
    world: WorldBuilder, dice: Dice, x: float, y: float, heading: float, speed: float
) -> None:
    """A lorry: a cab in paint and a taller plain cargo box behind it."""
    body = world.thing(Deliver.TRUCK, x, y, heading, speed)
    paint, half_length = dice.pick(CAR_PAINTS), dice.between(3.0, 4.2)
    cargo = dice.pick(
        ((0.70, 0.70, 0.68), (0.50, 0.47, 0.40), (0.12, 0.25, 0.42), (0.6, 0.3, 0.05))
    )
    front = half_length - 0.95
    body.add(BOX, 0, front, 0.45, 2.5, 1.1, 0.95, PAINT, paint)
    body.add(BOX, 0, half_length, 1.45, 2.25, 0.95, 0.06, GLASS, PANE)
    body.add(BOX, 0, -1.0, 0.85, 3.45, 1.25, half_length - 1.05, PLAIN, cargo)
    body.add(BOX, 0, -0.2, 0.5, 0.86, 0.9, half_length - 0.3, PLAIN, DARK)
    _wheels(body, 1.1, (-half_length * 0.72, -half_length * 0.4, half_length * 0.68), 0.5)
    _lights(body, 0.9, half_length + 0.02, 0.65)
    _contact_shadow(world, body, 1.2, half_length)


def two_wheeler(
    world: WorldBuilder,
    dice: Dice,
    x: float,
    y: float,
    heading: float,
    speed: float,
    ridden: bool,
) -> None:
    """A bicycle or motorcycle; the rider counts as a pedestrian, as in DELIVER."""
    bike = world.thing(Deliver.TWO_WHEELER, x, y, heading, speed)
    paint, motor = dice.pick(CAR_PAINTS), dice.chance(0.65)
    radius, width = (0.32, 0.13) if motor else (0.34, 0.06)
    for forward in (-0.66, 0.66):
        bike.add(ELLIPSOID, 0, forward, 0, 2 * radius, width, radius, PLAIN, RUBBER)
    low, high = (0.32, 0.82) if motor else (0.5, 0.66)
    bike.add(ELLIPSOID, 0, 0.05, low, high, width * 1.6, 0.72, PAINT, paint)
    bike.add(BOX, 0, -0.35, 0.74, 0.88, width * 1.3, 0.3, PLAIN, DARK)
    bike.add(BOX, 0, 0.55, 0.6, 1.02, 0.05, 0.05, PLAIN, STEEL)
    bike.add(BOX, 0, 0.5, 1.0, 1.07, 0.36, 0.04, PLAIN, DARK)
    if motor:
        bike.add(BOX, 0, 0.72, 0.78, 0.98, 0.1, 0.05, PLAIN, HEADLIGHT, 2.0)
        bike.add(BOX, 0, -0.8, 0.72, 0.84, 0.1, 0.04, PLAIN, TAILLIGHT, 1.6)
    if ridden:
        bike.relabel(Deliver.PEDESTRIAN)
        _person(bike, dice, hip=0.82, lean=-0.2)
        bike.add(BOX, 0.17, 0.05, 0.35, 0.85, 0.08, 0.22, PLAIN, DARK)
        bike.add(BOX, -0.17, 0.05, 0.35, 0.85, 0.08, 0.22, PLAIN, DARK)


def _person(body: Thing, dice: Dice, hip: float, lean: float) -> None:
    """Torso, arms and head above the hip."""
    coat = dice.pick(CLOTHES)
    skin = dice.pick(((0.62, 0.40, 0.28), (0.32, 0.18, 0.11), (0.48, 0.30, 0.19)))
    body.add(ELLIPSOID, 0, lean, hip - 0.12, hip + 0.66, 0.25, 0.17, PLAIN, coat)
    for side in (-0.27, 0.27):
        body.add(CYLINDER, side, lean, hip, hip + 0.55, 0.07, 0.08, PLAIN, coat)
    body.add(ELLIPSOID, 0, lean, hip + 0.62, hip + 0.9, 0.11, 0.12, PLAIN, skin)


def pedestrian(
    world: WorldBuilder, dice: Dice, x: float, y: float, heading: float, speed: float
) -> None:
    """A walking or standing person."""
    body = world.thing(Deliver.PEDESTRIAN, x, y, heading, speed)
    hip = dice.between(0.74, 0.92)
    stride = 0.16 if speed else 0.0
    trousers = dice.pick(CLOTHES)
    for side in (-1, 1):
        body.add(CYLINDER, 0.1 * side, stride * side, 0, hip, 0.09, 0.1, PLAIN, trousers)
    _person(body, dice, hip, 0.0)


def tree(world: WorldBuilder, dice: Dice, x: float, y: float) -> None:
    """A trunk and a crown of three ellipsoids, all vegetation."""
    body = world.thing(Deliver.VEGETATION, x, y, dice.between(0, 3))
    trunk, size, leaves = dice.between(1.8, 2.8), dice.between(1.0, 1.8), dice.pick(LEAVES)
    body.add(CYLINDER, 0, 0, 0, trunk + 0.8, 0.15, 0.15, PLAIN, (0.09, 0.06, 0.04))
    for _ in range(3):
        right, forward = dice.between(-0.5, 0.5) * size, dice.between(-0.5, 0.5) * size
        low = trunk + dice.between(-0.2, 0.8)
        half = size * dice.between(0.75, 1.1)
        body.add(ELLIPSOID, right, forward, low, low + 1.7 * half, half, half, FOLIAGE, leaves)


def bush(world: WorldBuilder, dice: Dice, x: float, y: float) -> None:
    """One low shrub."""
    half = dice.between(0.5, 0.9)
    world.thing(Deliver.VEGETATION, x, y).add(
        ELLIPSOID, 0, 0, -0.3, 1.7 * half, half, half, FOLIAGE, dice.pick(LEAVES)
    )


def street_lamp(world: WorldBuilder, dice: Dice, x: float, y: float, side: int) -> None:
    """A mast with an arm over the road (`side` -1: left, 1: right) and a lamp that burns at night."""
    mast = world.thing(Deliver.POLE, x, y)
    height = dice.between(5.0, 6.5)
    mast.add(CYLINDER, 0, 0, 0, height, 0.13, 0.13, PLAIN, STEEL)
    mast.add(CYLINDER, 0, 0, 0, 0.9, 0.2, 0.2, PLAIN, STEEL)
    mast.add(BOX, -side * 0.8, 0, height - 0.1, height + 0.06, 0.85, 0.06, PLAIN, STEEL)
    mast.add(BOX, -side * 1.5, 0, height - 0.22, height - 0.08, 0.4, 0.16, PLAIN, LAMP, 5.0)
    mast.light(-side * 1.5, 0, height - 0.3, 1.0)


def utility_pole(world: WorldBuilder, dice: Dice, x: float, y: float) -> None:
    """A thick wooden pole with a cross-arm."""
    pole = world.thing(Deliver.POLE, x, y)
    height, wood = dice.between(6, 8), (0.16, 0.11, 0.07)
    pole.add(CYLINDER, 0, 0, 0, height, 0.17, 0.17, PLAIN, wood)
    pole.add(BOX, 0, 0, height - 0.8, height - 0.62, 1.0, 0.07, PLAIN, wood)


def bollards(world: WorldBuilder, dice: Dice, x: float, y: float) -> None:
    """Three short posts along the kerb."""
    posts = world.thing(Deliver.POLE, x, y)
    for forward in (-1.1, 0.0, 1.1):
        posts.add(CYLINDER, 0, forward, 0, 1.0, 0.12, 0.12, PLAIN, (0.55, 0.5, 0.08))


def traffic_sign(world: WorldBuilder, dice: Dice, x: float, y: float) -> None:
    """A round, square or direction sign on a post, facing the traffic."""
    post = world.thing(Deliver.POLE, x, y, dice.between(-0.25, 0.25))
    wide = dice.chance(0.45)
    low, half = (1.5, 0.85) if wide else (1.9, dice.between(0.38, 0.5))
    high = low + (1.15 if wide else 2 * half)
    post.add(CYLINDER, 0, 0, 0, high, 0.06, 0.06, PLAIN, STEEL)
    post.relabel(Deliver.TRAFFIC_SIGN)
    board = dice.pick(
        ((0.60, 0.03, 0.03), (0.02, 0.10, 0.50), (0.65, 0.50, 0.02), (0.03, 0.28, 0.10))
    )
    post.add(BOX, 0, -0.07, low, high, half, 0.03, PLAIN, board)
    post.add(BOX, 0, -0.11, low + 0.2, high - 0.2, half - 0.2, 0.02, PLAIN, (0.8, 0.8, 0.78))


def sign_gantry(world: WorldBuilder, dice: Dice, x: tuple[float, float], y: float) -> None:
    """Direction boards on a beam across the road."""
    middle, half = (x[0] + x[1]) / 2, (x[1] - x[0]) / 2
    frame = world.thing(Deliver.POLE, middle, y)
    for right in (-half, half):
        frame.add(CYLINDER, right, 0, 0, 6.3, 0.16, 0.16, PLAIN, STEEL)
    frame.add(BOX, 0, 0, 5.9, 6.15, half, 0.1, PLAIN, STEEL)
    frame.relabel(Deliver.TRAFFIC_SIGN)
    board = dice.pick(((0.02, 0.10, 0.50), (0.03, 0.28, 0.10)))
    for right in (-half * 0.45, half * 0.45):
        frame.add(BOX, right, -0.15, 4.7, 6.5, half * 0.36, 0.05, PLAIN, board)
        frame.add(BOX, right, -0.21, 5.45, 5.65, half * 0.28, 0.01, PLAIN, (0.8, 0.8, 0.8))


def traffic_light(
    world: WorldBuilder, dice: Dice, x: float, y: float, side: int, state: int, reach: float
) -> None:
    """A mast with one head at eye height and one on an arm over the road; state 0 red, 1 amber, 2 green."""
    mast = world.thing(Deliver.POLE, x, y)
    mast.add(CYLINDER, 0, 0, 0, 5.6, 0.11, 0.11, PLAIN, STEEL)
    mast.add(BOX, -side * reach / 2, 0, 5.35, 5.5, reach / 2, 0.07, PLAIN, STEEL)
    mast.relabel(Deliver.TRAFFIC_LIGHT)
    _signal_head(mast, 0.0, 2.3, state)
    _signal_head(mast, -side * reach, 4.5, state)


def _signal_head(mast: Thing, right: float, low: float, state: int) -> None:
    mast.add(BOX, right, -0.1, low, low + 1.35, 0.3, 0.12, PLAIN, (0.03, 0.035, 0.03))
    colors = ((1.0, 0.05, 0.03), (1.0, 0.55, 0.02), (0.05, 0.95, 0.35))
    for index, color in enumerate(colors):
        bottom = low + 1.0 - 0.42 * index
        strength, tint = (1.6, color) if index == state else (0.0, (0.08, 0.06, 0.05))
        mast.add(BOX, right, -0.23, bottom, bottom + 0.3, 0.15, 0.02, PLAIN, tint, strength)


def bench(world: WorldBuilder, dice: Dice, x: float, y: float, side: int) -> None:
    """A street bench seen from the road."""
    body = world.thing(Deliver.STATIC, x, y)
    wood = (0.28, 0.15, 0.07)
    body.add(BOX, 0, 0, 0.40, 0.5, 0.28, 0.9, PLAIN, wood)
    body.add(BOX, side * 0.26, 0, 0.5, 0.98, 0.05, 0.9, PLAIN, wood)
    for forward in (-0.7, 0.7):
        body.add(BOX, 0, forward, 0, 0.4, 0.25, 0.06, PLAIN, DARK)


def bus_stop(world: WorldBuilder, dice: Dice, x: float, y: float, side: int) -> None:
    """A shelter: roof, back wall with an advertisement, two posts."""
    body = world.thing(Deliver.STATIC, x, y)
    body.add(BOX, 0, 0, 2.35, 2.5, 0.8, 1.6, PLAIN, (0.12, 0.2, 0.22))
    body.add(BOX, side * 0.7, 0, 0.2, 2.35, 0.05, 1.55, PLAIN, (0.25, 0.34, 0.36))
    body.add(BOX, 0, 1.5, 0.3, 2.2, 0.6, 0.06, PLAIN, dice.pick(CLOTHES))
    for forward in (-1.5, 1.5):
        body.add(BOX, -side * 0.7, forward, 0, 2.4, 0.06, 0.06, PLAIN, DARK)


def hydrant(world: WorldBuilder, dice: Dice, x: float, y: float) -> None:
    """A fire hydrant beside a cable cabinet."""
    body = world.thing(Deliver.STATIC, x, y)
    body.add(CYLINDER, 0, -0.6, 0, 0.75, 0.18, 0.18, PLAIN, (0.55, 0.05, 0.03))
    body.add(ELLIPSOID, 0, -0.6, 0.62, 0.92, 0.19, 0.19, PLAIN, (0.55, 0.05, 0.03))
    body.add(BOX, 0, 0.5, 0, 1.35, 0.3, 0.55, PLAIN, (0.32, 0.36, 0.32))


def fountain(world: WorldBuilder, dice: Dice, x: float, y: float) -> None:
    """A stone basin with a column."""
    body = world.thing(Deliver.STATIC, x, y)
    stone = (0.42, 0.40, 0.36)
    body.add(CYLINDER, 0, 0, 0, 0.75, 1.5, 1.5, PLAIN, stone)
    body.add(CYLINDER, 0, 0, 0, 2.1, 0.3, 0.3, PLAIN, stone)
    body.add(ELLIPSOID, 0, 0, 1.5, 2.1, 0.9, 0.9, PLAIN, stone)


def bins(world: WorldBuilder, dice: Dice, x: float, y: float) -> None:
    """Wheeled rubbish bins and bags: things that get moved."""
    body = world.thing(Deliver.DYNAMIC, x, y)
    for forward, color in ((-0.75, (0.03, 0.16, 0.06)), (0.0, (0.35, 0.28, 0.03))):
        body.add(BOX, 0, forward, 0.08, 1.1, 0.33, 0.32, PLAIN, color)
        body.add(BOX, 0, forward, 1.1, 1.2, 0.36, 0.35, PLAIN, DARK)
    body.add(ELLIPSOID, 0, 0.75, 0, 0.7, 0.36, 0.36, PLAIN, (0.03, 0.03, 0.035))


def trolley(world: WorldBuilder, dice: Dice, x: float, y: float) -> None:
    """A cart stacked with crates."""
    body = world.thing(Deliver.DYNAMIC, x, y, dice.between(-0.6, 0.6))
    body.add(BOX, 0, 0, 0.22, 0.32, 0.42, 0.75, PLAIN, STEEL)
    body.add(BOX, 0, -0.3, 0.32, 0.85, 0.38, 0.35, PLAIN, (0.42, 0.30, 0.16))
    body.add(BOX, 0, 0.38, 0.32, 1.2, 0.38, 0.33, PLAIN, (0.48, 0.34, 0.20))
    body.add(BOX, 0, -0.78, 0.22, 1.15, 0.35, 0.03, PLAIN, STEEL)
    for forward in (-0.55, 0.55):
        body.add(ELLIPSOID, 0, forward, 0, 0.24, 0.4, 0.12, PLAIN, RUBBER)


def stall(world: WorldBuilder, dice: Dice, x: float, y: float) -> None:
    """A market stall under an awning: nothing that DELIVER has a name for, so `Other`."""
    body = world.thing(Deliver.OTHER, x, y)
    cloth = dice.pick(((0.65, 0.10, 0.08), (0.10, 0.30, 0.55), (0.70, 0.55, 0.10)))
    body.add(BOX, 0, 0, 0, 0.95, 0.8, 1.1, PLAIN, (0.34, 0.22, 0.12))
    body.add(BOX, 0, 0, 2.1, 2.3, 1.15, 1.45, SLATS, cloth)
    body.add(BOX, 0, 0, 2.3, 2.5, 0.7, 0.95, SLATS, cloth)
    for right in (-1.0, 1.0):
        for forward in (-1.3, 1.3):
            body.add(BOX, right, forward, 0, 2.1, 0.05, 0.05, PLAIN, DARK)
