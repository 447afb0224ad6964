"""Every kind of frontage lays the ground and the classes that it is named for, inside its lot."""

from __future__ import annotations

import numpy as np
import pytest

from pipeline.datasets.deliver_classes import Deliver
from pipeline.datasets.synthetic.dice import Dice
from pipeline.datasets.synthetic.frontage import FRONTAGES, Lot, fence, guard_rail
from pipeline.datasets.synthetic.primitives import WorldBuilder

MUST_HAVE = {
    "houses": {Deliver.BUILDING, Deliver.SIDEWALK},
    "park": {Deliver.TERRAIN, Deliver.VEGETATION},
    "water": {Deliver.WATER, Deliver.TERRAIN, Deliver.WALL},
    "railway": {Deliver.RAIL_TRACK, Deliver.TERRAIN},
    "square": {Deliver.GROUND, Deliver.BUILDING},
    "wall": {Deliver.WALL, Deliver.TERRAIN},
}


@pytest.mark.parametrize("kind", FRONTAGES)
@pytest.mark.parametrize("side", [-1, 1])
def test_frontage_has_its_classes_and_keeps_off_the_road(kind, side):
    world = WorldBuilder()
    FRONTAGES[kind](world, Dice(np.random.default_rng(3)), Lot(side, 5.0, 10.0, 28.0))
    table = world.build()
    body = slice(0, len(table.low) - 1)
    assert {Deliver(v) for v in table.label[body]} >= MUST_HAVE[kind]
    tall = table.low[body] < 1.5
    inner = (table.center[body, 0] * side - table.half[body, 0])[tall]
    assert inner.min() > 3.5


def test_lot_measures_outwards_on_its_side():
    lot = Lot(-1, 5.0, 2.0, 9.0)
    assert lot.x(1.5) == -6.5
    assert lot.strip(0, 2) == (-5, -7)
    assert lot.length == 7


def test_fence_and_guard_rail_run_along_the_street():
    world = WorldBuilder()
    fence(world, Dice(np.random.default_rng(0)), Lot(1, 5.0, 10.0, 28.0), 0.5)
    guard_rail(world, 1, 4.5, (10.0, 28.0))
    table = world.build()
    assert table.label[0] == Deliver.FENCE
    assert table.label[1] == Deliver.GROUND_RAIL
    assert table.half[:2, 1].tolist() == [9, 9]
    assert table.half[:2, 0].max() < 0.1
