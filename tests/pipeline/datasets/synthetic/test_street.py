"""The layout: reproducible, varied, never built around the camera, and rich in rare classes."""

from __future__ import annotations

import math

import numpy as np
import pytest

from pipeline.datasets.deliver_classes import DELIVER_CLASSES, Deliver
from pipeline.datasets.synthetic.primitives import Primitives
from pipeline.datasets.synthetic.raycast import cast
from pipeline.datasets.synthetic.render import scene_world
from pipeline.datasets.synthetic.street import build_world

NUM_SCENES = 120
MIN_SHARE = 0.002
"""Floor for every class's share of all pixels; over 300 scenes each reaches 0.003."""


@pytest.fixture(scope="module")
def class_pixels() -> np.ndarray:
    """(scenes, classes) pixel counts at 96 px."""
    rows = []
    for index in range(NUM_SCENES):
        world = scene_world(0, index)
        hits = cast(world.primitives, world.lens(96), world.camera)
        labels = world.primitives.label[hits.primitive].ravel()
        rows.append(np.bincount(labels, minlength=len(DELIVER_CLASSES)))
    return np.array(rows)


def test_every_class_is_frequent_enough_to_learn(class_pixels):
    share = class_pixels.sum(axis=0) / class_pixels.sum()
    rare = {DELIVER_CLASSES[k]: float(v) for k, v in enumerate(share) if v < MIN_SHARE}
    assert rare == {}
    assert (share >= 0.003).sum() >= 20


def test_road_and_sky_leave_half_of_the_image(class_pixels):
    share = class_pixels.sum(axis=0) / class_pixels.sum()
    assert share[Deliver.ROAD] + share[Deliver.SKY] <= 0.52


def test_every_class_is_seen_in_many_scenes(class_pixels):
    assert ((class_pixels > 10).mean(axis=0) > 0.08).all()


def test_same_stream_same_world():
    one, two = (build_world(np.random.default_rng([5, 9])) for _ in range(2))
    for name in Primitives.__slots__:
        assert np.array_equal(getattr(one.primitives, name), getattr(two.primitives, name))
    assert (one.camera, one.speed, one.turn) == (two.camera, two.speed, two.turn)


def test_worlds_differ():
    sizes = {len(scene_world(0, index).primitives.low) for index in range(20)}
    assert len(sizes) > 10


def test_camera_is_outside_of_everything():
    for index in range(NUM_SCENES):
        world = scene_world(2, index)
        assert cast(world.primitives, world.lens(32), world.camera).depth.min() > 0.5


def test_field_of_view_is_narrow_enough_for_objects_to_be_large():
    views = [scene_world(0, index).view_deg for index in range(30)]
    assert 70 <= min(views) < max(views) <= 75


def test_camera_moves_along_its_heading():
    world = next(w for w in (scene_world(0, i) for i in range(20)) if w.speed)
    pose = world.camera_at(-0.5)
    forward = (math.sin(world.camera.heading), math.cos(world.camera.heading))
    assert pose.x == pytest.approx(world.camera.x - 0.5 * world.speed * forward[0])
    assert pose.y == pytest.approx(world.camera.y - 0.5 * world.speed * forward[1])
    assert pose.heading == pytest.approx(world.camera.heading - 0.5 * world.turn)
    assert world.camera_at(0.0) == world.camera
