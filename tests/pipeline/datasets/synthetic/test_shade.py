"""Light: finite, of the right brightness per weather, and doing what its name says."""

from __future__ import annotations

import numpy as np
import pytest

from pipeline.datasets.deliver_classes import Deliver
from pipeline.datasets.synthetic.primitives import Material, WorldBuilder
from pipeline.datasets.synthetic.raycast import Pose
from pipeline.datasets.synthetic.render import scene_world
from pipeline.datasets.synthetic.shade import expose
from pipeline.datasets.synthetic.shadow import Sun, cast_shadows, no_shadows
from pipeline.datasets.synthetic.street import World
from pipeline.datasets.synthetic.weather import CONDITIONS, WEATHERS

SUN = Sun(0.0, -1.0, 1.0)
"""Behind the camera."""


def _wall(distance: float) -> World:
    """A plain wall that fills the upper half of the view, above level ground."""
    world = WorldBuilder()
    world.slab(Deliver.ROAD, (-50, 50), (-9, 200), 0.0, Material.PLAIN, (0.3, 0.3, 0.3))
    y = (distance, distance + 1)
    world.slab(Deliver.WALL, (-90, 90), y, 90.0, Material.PLAIN, (0.3, 0.3, 0.3))
    lamps = np.zeros((0, 4), np.float32)
    return World(world.build(), lamps, Pose(0, 0, 1.6, 0), 72, 0.5, 0.0, 0.0)


def _expose(world: World, condition: str, size_px: int = 32) -> np.ndarray:
    weather = WEATHERS[condition]
    shadows = cast_shadows(world.primitives, SUN) if weather.sunny else no_shadows(SUN)
    return expose(world, weather, shadows, world.lens(size_px), 0.0).radiance


@pytest.mark.parametrize("condition", CONDITIONS)
def test_radiance_is_finite_and_not_negative(condition):
    for index in range(3):
        radiance = _expose(scene_world(0, index), condition, 48)
        assert radiance.shape == (3, 48, 48)
        assert radiance.dtype == np.float32
        assert np.isfinite(radiance).all()
        assert radiance.min() >= -1e-5


def test_brightness_orders_the_weathers():
    world = _wall(12)
    level = {condition: _expose(world, condition)[:, :12].mean() for condition in CONDITIONS}
    assert level["night"] < 0.2 * level["rain"]
    assert level["rain"] < level["cloud"] < level["sun"]


def test_fog_hides_the_distance():
    near, far = (_expose(_wall(distance), "fog")[0, :12].mean() for distance in (5, 120))
    haze = WEATHERS["fog"].horizon[0]
    assert abs(far - haze) < 0.02
    assert abs(near - haze) > 0.15


def test_lamps_light_the_night_around_them():
    dark = _wall(12)
    lamp = np.array([[0, 10, 5, 1]], np.float32)
    lit = World(dark.primitives, lamp, dark.camera, 72, 0.5, 0.0, 0.0)
    gain = _expose(lit, "night") - _expose(dark, "night")
    assert gain[0, :16].mean() > 0.03
    assert gain[0].max() > 5 * np.median(gain[0])


def test_shadows_darken_the_sunny_ground_only_behind_things():
    world = WorldBuilder()
    world.slab(Deliver.ROAD, (-50, 50), (-9, 200), 0.0, Material.PLAIN, (0.3, 0.3, 0.3))
    world.slab(Deliver.WALL, (-1, 1), (8, 9), 3.0, Material.PLAIN, (0.3, 0.3, 0.3))
    world_ahead = World(
        world.build(), np.zeros((0, 4), np.float32), Pose(3, 0, 1.6, 0), 72, 0.5, 0, 0
    )
    ahead = Sun(0.0, 1.0, 1.0)
    lens = world_ahead.lens(64)
    lit = expose(world_ahead, WEATHERS["sun"], no_shadows(ahead), lens, 0.0)
    shaded = expose(
        world_ahead, WEATHERS["sun"], cast_shadows(world_ahead.primitives, ahead), lens, 0.0
    )
    change = (lit.radiance - shaded.radiance)[0]
    assert (change > 0.1).mean() > 0.005
    assert (change > 0.01).mean() < 0.2
    assert change.min() >= -1e-6


def test_wet_ground_mirrors_what_stands_on_it():
    """Two walls that differ in colour only: in the rain the ground before them differs too."""
    images = []
    for color in ((0.8, 0.1, 0.1), (0.1, 0.1, 0.8)):
        world = WorldBuilder()
        world.slab(Deliver.ROAD, (-50, 50), (-9, 200), 0.0, Material.PLAIN, (0.1, 0.1, 0.1))
        world.slab(Deliver.WALL, (-90, 90), (8, 9), 90.0, Material.PLAIN, color)
        lamps = np.zeros((0, 4), np.float32)
        images.append(World(world.build(), lamps, Pose(0, 0, 1.6, 0), 72, 0.5, 0.0, 0.0))
    ground = slice(22, 28)
    rain = [_expose(image, "rain")[0, ground].mean() for image in images]
    dry = [_expose(image, "cloud")[0, ground].mean() for image in images]
    assert rain[0] > 1.3 * rain[1]
    assert dry[0] == pytest.approx(dry[1], rel=1e-3)


def test_a_world_at_rest_gives_the_same_light_at_both_times():
    world = _wall(10)
    weather, lens = WEATHERS["cloud"], world.lens(32)
    now, before = (expose(world, weather, no_shadows(SUN), lens, s) for s in (0.0, -0.03))
    assert np.array_equal(now.radiance, before.radiance)
