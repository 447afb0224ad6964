"""Each thing carries the classes that it should, stands on the ground and has a sensible size."""

from __future__ import annotations

import numpy as np
import pytest

from pipeline.datasets.deliver_classes import Deliver
from pipeline.datasets.synthetic import objects
from pipeline.datasets.synthetic.dice import Dice
from pipeline.datasets.synthetic.primitives import WorldBuilder

Y = 8.0
CASES = {
    "car": (lambda w, d: objects.car(w, d, 0, Y, 0, 5), {Deliver.CARS, Deliver.ROAD}, (4.7, 2.2)),
    "bus": (lambda w, d: objects.bus(w, d, 0, Y, 0, 5), {Deliver.BUS, Deliver.ROAD}, (12.3, 3.4)),
    "truck": (lambda w, d: objects.truck(w, d, 0, Y, 0, 5), {Deliver.TRUCK, Deliver.ROAD}, (8.6, 3.5)),
    "bike": (lambda w, d: objects.two_wheeler(w, d, 0, Y, 0, 0, False), {Deliver.TWO_WHEELER}, (2.2, 1.1)),
    "rider": (
        lambda w, d: objects.two_wheeler(w, d, 0, Y, 0, 6, True),
        {Deliver.TWO_WHEELER, Deliver.PEDESTRIAN},
        (2.2, 1.9),
    ),
    "pedestrian": (lambda w, d: objects.pedestrian(w, d, 0, Y, 0, 1), {Deliver.PEDESTRIAN}, (0.8, 1.9)),
    "tree": (lambda w, d: objects.tree(w, d, 0, Y), {Deliver.VEGETATION}, (6.0, 7.1)),
    "bush": (lambda w, d: objects.bush(w, d, 0, Y), {Deliver.VEGETATION}, (1.9, 1.6)),
    "lamp": (lambda w, d: objects.street_lamp(w, d, 0, Y, 1), {Deliver.POLE}, (0.5, 6.6)),
    "pole": (lambda w, d: objects.utility_pole(w, d, 0, Y), {Deliver.POLE}, (0.5, 8.1)),
    "bollards": (lambda w, d: objects.bollards(w, d, 0, Y), {Deliver.POLE}, (2.6, 1.1)),
    "sign": (lambda w, d: objects.traffic_sign(w, d, 0, Y), {Deliver.POLE, Deliver.TRAFFIC_SIGN}, (0.9, 3.0)),
    "gantry": (
        lambda w, d: objects.sign_gantry(w, d, (-5, 5), Y),
        {Deliver.POLE, Deliver.TRAFFIC_SIGN},
        (0.7, 6.6),
    ),
    "light": (
        lambda w, d: objects.traffic_light(w, d, 0, Y, 1, 0, 2.5),
        {Deliver.POLE, Deliver.TRAFFIC_LIGHT},
        (0.6, 6.0),
    ),
    "bench": (lambda w, d: objects.bench(w, d, 0, Y, 1), {Deliver.STATIC}, (1.9, 1.0)),
    "stop": (lambda w, d: objects.bus_stop(w, d, 0, Y, 1), {Deliver.STATIC}, (3.3, 2.6)),
    "hydrant": (lambda w, d: objects.hydrant(w, d, 0, Y), {Deliver.STATIC}, (2.1, 1.5)),
    "fountain": (lambda w, d: objects.fountain(w, d, 0, Y), {Deliver.STATIC}, (3.1, 2.2)),
    "bins": (lambda w, d: objects.bins(w, d, 0, Y), {Deliver.DYNAMIC}, (2.4, 1.3)),
    "trolley": (lambda w, d: objects.trolley(w, d, 0, Y), {Deliver.DYNAMIC}, (2.2, 1.3)),
    "stall": (lambda w, d: objects.stall(w, d, 0, Y), {Deliver.OTHER}, (3.0, 2.6)),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("seed", range(5))
def test_classes_and_size(name, seed):
    build, labels, (length, height) = CASES[name]
    world = WorldBuilder()
    build(world, Dice(np.random.default_rng(seed)))
    table = world.build()
    body = slice(0, len(table.low) - 1)
    assert {Deliver(v) for v in table.label[body]} == labels
    assert table.low[body].min() <= 0.35
    assert 0.3 * height < table.high[body].max() <= height
    reach = np.abs(table.center[body, 1] - Y) + table.half[body, 1]
    assert reach.max() <= length / 2 + 0.2


def test_riders_move_with_their_bike():
    world = WorldBuilder()
    objects.two_wheeler(world, Dice(np.random.default_rng(0)), 0, Y, 0.0, 6.0, True)
    assert (world.build().velocity[:-1] == [0, 6]).all()


def test_lamps_register_a_light_at_the_lamp():
    world = WorldBuilder()
    objects.street_lamp(world, Dice(np.random.default_rng(0)), 4.0, Y, 1)
    ((x, y, height, strength),) = world.lamps
    assert (x, y, strength) == (2.5, Y, 1.0)
    assert height > 4
