"""Crops: the pixel values of inference, and contents that match the labels of the crop."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from teacher.preprocessing.images import normalise_pixels
from teacher.tiny.cache import Scenes
from teacher.tiny.layout import GRID
from teacher.tiny.lexicon import CLASSES
from teacher.tiny.scenes import (
    SENSORS,
    Box,
    pixel_values,
    random_box,
    truth_of,
)
from teacher.towers.vision_tower import load_tower

ROWS = np.arange(3)
WHOLE = [Box()] * 3


@pytest.mark.parametrize("sensor", ["rgb", "event", "depth", "lidar"])
def test_whole_scenes_are_preprocessed_as_in_inference(scenes, sensor, assets):
    tower = load_tower(str(assets), SENSORS[sensor])
    wanted = tower.preprocess(list(scenes.arrays[sensor][:3]))
    torch.testing.assert_close(pixel_values(scenes, sensor, ROWS, WHOLE), wanted, atol=2e-4, rtol=0)


def test_flip_mirrors_pixels_and_contents(scenes):
    flipped = [Box(flip=True)] * 3
    straight = pixel_values(scenes, "rgb", ROWS, WHOLE)
    mirrored = pixel_values(scenes, "rgb", ROWS, flipped)
    torch.testing.assert_close(mirrored, straight.flip(-1), atol=1e-4, rtol=0)
    before, after = truth_of(scenes, ROWS, WHOLE), truth_of(scenes, ROWS, flipped)
    for left, right in zip(before.contents, after.contents, strict=True):
        present = left.areas > 0.01
        np.testing.assert_allclose(left.centres[present], 1 - right.centres[present], atol=0.05)


def test_grey_copies_have_one_value_for_all_channels(scenes):
    grey = pixel_values(scenes, "rgb", ROWS, WHOLE, np.random.default_rng([0]))
    scale = normalise_pixels(torch.ones(1, 3, 1, 1)) - normalise_pixels(torch.zeros(1, 3, 1, 1))
    unit = (grey - normalise_pixels(torch.zeros(1, 3, 1, 1))) / scale
    torch.testing.assert_close(unit[:, 0], unit[:, 1], atol=1e-4, rtol=0)
    assert float(unit.std()) > 0.01


def test_truth_counts_the_labels_of_a_crop():
    label = np.zeros((1, 128, 128), np.uint8)
    label[0, :, 64:] = 9
    label[0, :64, 96:] = 255
    scenes = Scenes({"label": label}, ("fog",), ("x",))
    truth = truth_of(scenes, np.array([0]), [Box()])
    assert truth.patch_shares.shape == (1, GRID**2, len(CLASSES))
    assert float(truth.areas[0, 0]) == pytest.approx(0.5)
    assert float(truth.areas[0, 9]) == pytest.approx(0.375), "ignored pixels count nowhere"
    assert truth.contents[0].centres[0] == pytest.approx(0.25)
    right = truth_of(scenes, np.array([0]), [Box(0.75, 0.5, 0.25, 0.5)])
    assert float(right.areas[0, 0]) == 0.0


def test_random_boxes_stay_inside():
    rng = np.random.default_rng([4])
    boxes = [random_box(rng, 0.2) for _ in range(300)]
    assert 20 < sum(box.half_width == 0.5 == box.half_height for box in boxes) < 120
    for box in boxes:
        assert box.half_width <= box.centre_x <= 1 - box.half_width + 1e-9
        assert box.half_height <= box.centre_y <= 1 - box.half_height + 1e-9
