"""The builder: parts land where their thing puts them, and unseen ones are left out."""

from __future__ import annotations

import math

import numpy as np
import pytest

from pipeline.datasets.deliver_classes import Deliver
from pipeline.datasets.synthetic.primitives import Material, Shape, WorldBuilder

GRAY = (0.5, 0.5, 0.5)


def _add(thing, right=0.0, forward=0.0, half=0.5, emission=0.0):
    thing.add(Shape.BOX, right, forward, 0, 1, half, half, Material.PLAIN, GRAY, emission)


def test_parts_turn_with_their_thing():
    world = WorldBuilder()
    _add(world.thing(Deliver.CARS, 3, 10, heading=math.pi / 2, speed=2), right=1, forward=2)
    table = world.build()
    assert table.center[0] == pytest.approx([5, 9], abs=1e-6)
    assert table.velocity[0] == pytest.approx([2, 0], abs=1e-6)


def test_last_row_is_the_sky():
    table = WorldBuilder().build()
    assert table.label.tolist() == [Deliver.SKY]
    assert table.material.tolist() == [Material.SKY]


def test_relabelled_parts_are_another_instance():
    world = WorldBuilder()
    thing = world.thing(Deliver.TWO_WHEELER, 0, 5)
    _add(thing)
    _add(thing.relabel(Deliver.PEDESTRIAN))
    table = world.build()
    assert table.label[:2].tolist() == [Deliver.TWO_WHEELER, Deliver.PEDESTRIAN]
    assert table.instance[0] != table.instance[1]


def test_slab_takes_its_corners_in_any_order():
    world = WorldBuilder()
    world.slab(Deliver.ROAD, (4, -2), (9, 5), 0.0, Material.ASPHALT, GRAY)
    table = world.build()
    assert table.center[0].tolist() == [1, 7]
    assert table.half[0].tolist() == [3, 2]


def test_specks_and_things_behind_the_camera_are_left_out_but_not_lamps():
    world = WorldBuilder()
    _add(world.thing(Deliver.STATIC, 0, -5))
    _add(world.thing(Deliver.STATIC, 0, 60), half=0.02)
    _add(world.thing(Deliver.STATIC, 0, 60), half=0.02, emission=1.0)
    assert len(world.build().low) == 2


def test_moved_shifts_by_velocity_and_leaves_the_original():
    world = WorldBuilder()
    _add(world.thing(Deliver.CARS, 0, 10, speed=4))
    table = world.build()
    before = table.center.copy()
    assert table.moved(-0.5).center[0] == pytest.approx([0, 8])
    assert np.array_equal(table.center, before)
