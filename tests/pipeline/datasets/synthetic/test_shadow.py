"""The shadow map against ray casts towards the sun."""

from __future__ import annotations

import math

import numpy as np
import pytest

from pipeline.datasets.deliver_classes import Deliver
from pipeline.datasets.synthetic.primitives import Material, Shape, WorldBuilder
from pipeline.datasets.synthetic.shadow import Sun, cast_shadows, no_shadows

SUN = Sun(0.0, 1.0, 1.0)
"""Ahead of the camera, 45 degrees up: shadows fall towards us."""


def _world(shape: Shape = Shape.BOX, heading: float = 0.0):
    world = WorldBuilder()
    thing = world.thing(Deliver.STATIC, 0, 12, heading)
    thing.add(shape, 0, 0, 0.0, 4.0, 2.0, 2.0, Material.PLAIN, (1, 1, 1))
    return world.build()


def _lit(shadows, x, y, z):
    return shadows.lit(*(np.array([v], np.float32) for v in (x, y, z)))[0]


@pytest.mark.parametrize(
    ("shape", "heading"),
    [(Shape.BOX, 0.0), (Shape.BOX, 0.7), (Shape.CYLINDER, 0.0), (Shape.ELLIPSOID, 0.0)],
)
def test_a_block_shades_what_lies_behind_it(shape, heading):
    shadows = cast_shadows(_world(shape, heading), SUN)
    assert _lit(shadows, 0, 8.5, 0) == 0
    assert _lit(shadows, 0, 16, 0) == 1
    assert _lit(shadows, 4, 8.5, 0) == 1
    assert _lit(shadows, 0, 4, 0) == 1


def test_shade_ends_above_the_line_to_the_top():
    shadows = cast_shadows(_world(), SUN)
    assert _lit(shadows, 0, 8, 1.0) == 0
    assert _lit(shadows, 0, 8, 3.5) == 1


def test_box_shadow_agrees_with_geometry_on_a_grid():
    sun = Sun(math.sin(0.5), math.cos(0.5), 1.2)
    shadows = cast_shadows(_world(), sun)
    x, y = (v.ravel() for v in np.meshgrid(np.arange(-6, 6, 0.37), np.arange(4, 18, 0.41)))
    steps = np.linspace(0, 4 / sun.slope, 400)[:, None]
    px, py = x + steps * sun.x, y + steps * sun.y - 12
    dark = ((np.abs(px) < 2) & (np.abs(py) < 2) & (steps * sun.slope > 0.5)).any(axis=0)
    shadowed = shadows.lit(*(v.astype(np.float32) for v in (x, y, np.zeros_like(x)))) == 0
    assert (shadowed == dark).mean() > 0.95


def test_lit_faces_do_not_shade_themselves():
    shadows = cast_shadows(_world(), SUN)
    x = np.linspace(-1.8, 1.8, 40, dtype=np.float32)
    for height in (0.2, 2.0, 3.9):
        assert shadows.lit(x, np.full_like(x, 14.0), np.full_like(x, height)).all()


def test_no_shadows_lights_everything():
    assert _lit(no_shadows(SUN), 0, 8.5, 0) == 1


def test_direction_is_a_unit_vector():
    assert np.linalg.norm(Sun(0.6, 0.8, 1.3).direction) == pytest.approx(1)
