"""The separable ray cast against a naive loop over rays and primitives."""

from __future__ import annotations

import math

import numpy as np
import pytest

from pipeline.datasets.deliver_classes import Deliver
from pipeline.datasets.synthetic.primitives import Material, Primitives, Shape, WorldBuilder
from pipeline.datasets.synthetic.raycast import NEAR_M, Lens, Pose, cast

LENS = Lens.from_view(24, 72, 0.47)
POSE = Pose(0.4, -0.3, 1.7, 0.2)


def _random_world(seed: int) -> Primitives:
    rng = np.random.default_rng(seed)
    world = WorldBuilder()
    world.slab(Deliver.ROAD, (-50, 50), (-10, 90), 0.0, Material.ASPHALT, (0.1, 0.1, 0.1))
    for _ in range(25):
        shape = rng.choice(list(Shape))
        thing = world.thing(
            Deliver.STATIC, rng.uniform(-8, 8), rng.uniform(4, 25), rng.uniform(-3, 3)
        )
        low, half = rng.uniform(-0.5, 3), rng.uniform(0.1, 1.5, 2)
        thing.add(shape, 0, 0, low, low + rng.uniform(0.2, 3), *half, Material.PLAIN, (1, 1, 1))
    return world.build()


def _naive_hit(table: Primitives, index: int, origin: np.ndarray, ray: np.ndarray) -> float:
    """Depth at which one ray enters one primitive, in float64; infinite if it does not."""
    sin, cos = math.sin(table.heading[index]), math.cos(table.heading[index])
    turn = np.array([[cos, -sin, 0], [sin, cos, 0], [0, 0, 1]])
    low, high = float(table.low[index]), float(table.high[index])
    center = np.array([*table.center[index], (low + high) / 2], float)
    half = np.array([*table.half[index], (high - low) / 2], float)
    start, step = turn @ (origin - center) / half, turn @ ray / half
    axes = {Shape.BOX: 0, Shape.CYLINDER: 2, Shape.ELLIPSOID: 3}[Shape(table.shape[index])]
    enter, leave = NEAR_M, math.inf
    if axes:
        a, b = step[:axes] @ step[:axes], start[:axes] @ step[:axes]
        spread = b * b - a * (start[:axes] @ start[:axes] - 1)
        if spread <= 0:
            return math.inf
        enter, leave = max(enter, (-b - spread**0.5) / a), (-b + spread**0.5) / a
    for axis in range(axes, 3):
        one, two = sorted(((-1 - start[axis]) / step[axis], (1 - start[axis]) / step[axis]))
        enter, leave = max(enter, one), min(leave, two)
    return enter if enter < leave else math.inf


@pytest.mark.parametrize("seed", range(3))
def test_agrees_with_a_naive_loop(seed):
    table = _random_world(seed)
    hits = cast(table, LENS, POSE)
    right, forward = POSE.directions(LENS)
    origin = np.array([POSE.x, POSE.y, POSE.z])
    for row, up in enumerate(LENS.rows().astype(float)):
        for column in range(LENS.size_px):
            ray = np.array([right[column], forward[column], up], float)
            depths = [_naive_hit(table, i, origin, ray) for i in range(len(table.low) - 1)]
            nearest = int(np.argmin(depths))
            if math.isinf(depths[nearest]):
                assert math.isinf(hits.depth[row, column])
                assert hits.primitive[row, column] == len(table.low) - 1
                continue
            assert hits.depth[row, column] == pytest.approx(depths[nearest], rel=1e-3)
            close = [i for i, d in enumerate(depths) if d < depths[nearest] * 1.002]
            assert hits.primitive[row, column] in close


def test_empty_world_is_sky():
    hits = cast(WorldBuilder().build(), LENS, POSE)
    assert np.isinf(hits.depth).all()
    assert (hits.primitive == 0).all()


def test_ground_depth_is_height_over_slope():
    world = WorldBuilder()
    world.slab(Deliver.ROAD, (-500, 500), (-10, 900), 0.0, Material.ASPHALT, (0.1, 0.1, 0.1))
    hits = cast(world.build(), LENS, Pose(0, 0, 2.0, 0))
    down = LENS.rows() < -0.01
    expected = np.broadcast_to((2.0 / -LENS.rows()[down])[:, None], hits.depth[down].shape)
    assert hits.depth[down] == pytest.approx(expected, rel=1e-4)


def test_lens_spans_its_view_and_avoids_the_exact_horizon():
    lens = Lens.from_view(100, 90, 0.505)
    assert lens.columns()[0] == pytest.approx(-0.99)
    assert lens.columns()[-1] == pytest.approx(0.99)
    assert (lens.rows() != 0).all()


def test_pose_inside_a_box_sees_its_near_plane():
    world = WorldBuilder()
    world.slab(Deliver.WALL, (-1, 1), (-1, 1), 3.0, Material.BRICK, (1, 1, 1))
    assert cast(world.build(), LENS, Pose(0, 0, 1, 0)).depth == pytest.approx(NEAR_M)
