"""Surface reconstruction: points lie on their primitive, normals are unit, face us and fit the face."""

from __future__ import annotations

import numpy as np
import pytest

from pipeline.datasets.deliver_classes import Deliver
from pipeline.datasets.synthetic.primitives import Material, Shape, WorldBuilder
from pipeline.datasets.synthetic.raycast import Lens, Pose, cast
from pipeline.datasets.synthetic.render import scene_world
from pipeline.datasets.synthetic.surface import locate

LENS = Lens.from_view(32, 72, 0.5)
POSE = Pose(0, 0, 1.5, 0)


def _look_at(shape: Shape):
    world = WorldBuilder()
    thing = world.thing(Deliver.STATIC, 0, 6)
    thing.add(shape, 0, 0, 0.0, 3.0, 1.5, 1.5, Material.PLAIN, (1, 1, 1))
    table = world.build()
    hits = cast(table, LENS, POSE)
    surface = locate(table, hits, LENS, POSE)
    return surface, np.flatnonzero(surface.material == Material.PLAIN)


def test_points_of_an_ellipsoid_lie_on_it_and_normals_point_outwards():
    surface, seen = _look_at(Shape.ELLIPSOID)
    offset = np.stack([surface.x[seen], surface.y[seen] - 6, surface.z[seen] - 1.5])
    assert np.linalg.norm(offset, axis=0) == pytest.approx(1.5, rel=1e-4)
    normal = np.stack([part[seen] for part in surface.normal])
    assert normal == pytest.approx(offset / 1.5, abs=1e-3)


def test_box_front_faces_the_camera():
    surface, seen = _look_at(Shape.BOX)
    front = seen[np.abs(surface.y[seen] - 4.5) < 1e-3]
    assert len(front) > 20
    assert surface.normal[1][front] == pytest.approx(-1)
    assert surface.v[front] == pytest.approx(surface.z[front])
    assert surface.u[front] == pytest.approx(surface.x[front], abs=1e-5)


def test_cylinder_sides_have_level_normals():
    surface, seen = _look_at(Shape.CYLINDER)
    side = seen[surface.z[seen] < 2.9]
    assert surface.normal[2][side] == pytest.approx(0)
    assert np.hypot(surface.x[side], surface.y[side] - 6) == pytest.approx(1.5, rel=1e-4)


@pytest.mark.parametrize("index", range(4))
def test_whole_scenes_have_finite_unit_normals_towards_the_camera(index):
    world = scene_world(1, index)
    lens = world.lens(64)
    hits = cast(world.primitives, lens, world.camera)
    surface = locate(world.primitives, hits, lens, world.camera)
    seen = np.flatnonzero(surface.material != Material.SKY)
    x, y, z = (part[seen] for part in surface.normal)
    assert np.sqrt(x * x + y * y + z * z) == pytest.approx(1, abs=1e-4)
    toward = x * surface.right[seen] + y * surface.forward[seen] + z * surface.up[seen]
    assert (toward < 1e-3).mean() > 0.995
    for field in ("x", "y", "z", "u", "v", "footprint"):
        assert np.isfinite(getattr(surface, field)).all()
