"""HHA of planes with known disparity, height and angle."""

from __future__ import annotations

import numpy as np
import pytest

from pipeline.datasets.synthetic.raycast import Lens
from tests.support.hha import hha_image

LENS = Lens.from_view(64, 72, 0.5)
INNER = (slice(3, -3), slice(3, -3))


def test_level_ground_is_at_height_zero_and_angle_zero():
    metres = np.where(LENS.rows() < -0.05, 1.6 / -LENS.rows(), 0)
    depth = np.repeat((metres * 1000).astype(np.uint16)[:, None], 64, axis=1)
    ground = hha_image(depth, LENS, 1.6)[40:60, 5:-5].astype(int)
    assert ground[..., 1].max() <= 1
    assert np.abs(ground[..., 2] - 38).max() <= 2


def test_facing_wall_has_one_disparity_and_a_right_angle():
    wall = hha_image(np.full((64, 64), 5000, np.uint16), LENS, 1.6).astype(int)
    assert (wall[..., 0] == 62).all()
    assert np.abs(wall[INNER][..., 2] - 128).max() <= 1
    expected = np.clip((1.6 + 5 * LENS.rows()) * 100, 0, 255)
    assert wall[:, 10, 1] == pytest.approx(expected, abs=1)


def test_holes_stay_black_and_near_things_saturate():
    depth = np.full((64, 64), 300, np.uint16)
    depth[:32] = 0
    image = hha_image(depth, LENS, 1.6)
    assert image[:32].max() == 0
    assert (image[40:, :, 0] == 255).all()
