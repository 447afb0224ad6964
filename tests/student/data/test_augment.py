"""Geometry moves everything together, colours move alone, and what is off does nothing."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from pipeline.datasets.resize import nearest
from pipeline.modalities import KINDS
from pipeline.shards.sample_reader import Decoded
from student.data.augment import Augment, recoloured, zoomed

SPECS = {name: KINDS[name] for name in ("rgb", "depth", "event")}
SIZE = (40, 64)


def sample() -> Decoded:
    rng = np.random.default_rng(0)
    arrays = {
        "rgb": rng.integers(1, 255, (*SIZE, 3), np.uint8),
        "depth": rng.integers(0, 9000, SIZE, np.uint16),
        "event": rng.integers(0, 255, (*SIZE, 3), np.uint8),
    }
    return Decoded(arrays, rng.integers(0, 5, SIZE, np.uint8))


def test_what_is_off_returns_the_very_sample() -> None:
    one = sample()
    assert zoomed(one, Augment(), SPECS, 0, 0) is one
    assert recoloured(one, Augment(), SPECS, 0, 0) is one


def test_a_zoom_resizes_all_alike_and_invents_no_class_and_no_distance() -> None:
    one, augment = sample(), Augment(scale=(0.5, 2.0))
    heights = set()
    for position in range(30):
        found = zoomed(one, augment, SPECS, 7, position)
        size = found.label.shape
        assert {array.shape[:2] for array in found.arrays.values()} == {size}
        assert size[0] / SIZE[0] == pytest.approx(size[1] / SIZE[1], rel=0.03)
        np.testing.assert_array_equal(found.label, nearest(one.label, size))
        np.testing.assert_array_equal(found.arrays["depth"], nearest(one.arrays["depth"], size))
        heights.add(size[0])
    assert 20 <= min(heights) < 26
    assert 60 < max(heights) <= 80
    again = zoomed(one, augment, SPECS, 7, 29)
    np.testing.assert_array_equal(again.arrays["rgb"], found.arrays["rgb"])


@pytest.mark.parametrize("settings", [{"jitter": 0.4}, {"blur": 1.0}])
def test_colours_change_in_colour_pictures_alone(settings: dict[str, float]) -> None:
    one, augment = sample(), Augment(**settings)
    found = recoloured(one, augment, SPECS, 3, 5)
    assert found.arrays["rgb"].shape == one.arrays["rgb"].shape
    assert found.arrays["rgb"].dtype == np.uint8
    assert (found.arrays["rgb"] != one.arrays["rgb"]).mean() > 0.5
    for name in ("depth", "event"):
        assert found.arrays[name] is one.arrays[name]
    assert found.label is one.label
    other = recoloured(one, augment, SPECS, 3, 6)
    assert (found.arrays["rgb"] != other.arrays["rgb"]).any()


def test_a_blur_smooths_and_keeps_the_mean() -> None:
    one = sample()
    before = one.arrays["rgb"].astype(float)
    steps = []
    for position in range(10):
        found = recoloured(one, Augment(blur=1.0), SPECS, 3, position).arrays["rgb"].astype(float)
        assert found.mean() == pytest.approx(before.mean(), abs=3)
        steps.append(np.abs(np.diff(found, axis=1)).mean())
    assert min(steps) < 0.5 * np.abs(np.diff(before, axis=1)).mean()
    assert len(set(steps)) > 5


def test_a_blur_comes_as_often_as_asked() -> None:
    one, augment = sample(), replace(Augment(), blur=0.3)
    same = [
        np.array_equal(
            recoloured(one, augment, SPECS, 0, position).arrays["rgb"], one.arrays["rgb"]
        )
        for position in range(200)
    ]
    assert 110 < sum(same) < 170
