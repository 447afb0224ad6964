"""Attributes: drawn per scene without rendering, in the right proportions; unknown names are refused."""

from __future__ import annotations

from collections import Counter

import pytest

from pipeline.datasets.synthetic.weather import (
    CONDITIONS,
    CORNER_CASES,
    WEATHERS,
    check_attributes,
    scene_attributes,
)
from pipeline.errors import DatasetError


def test_conditions_are_uniform_and_a_fifth_has_a_corner_case():
    drawn = [scene_attributes(0, index) for index in range(3000)]
    conditions = Counter(condition for condition, _ in drawn)
    assert set(conditions) == set(CONDITIONS)
    assert all(abs(count / 3000 - 0.2) < 0.03 for count in conditions.values())
    corners = Counter(corner for _, corner in drawn)
    assert set(corners) == {"", *CORNER_CASES}
    assert abs(1 - corners[""] / 3000 - 0.2) < 0.03


def test_attributes_depend_on_seed_and_index():
    assert scene_attributes(4, 2) == scene_attributes(4, 2)
    assert len({scene_attributes(seed, 0) for seed in range(60)}) > 5


def test_every_condition_has_a_weather_and_one_has_sun():
    assert set(WEATHERS) == set(CONDITIONS)
    assert [name for name, weather in WEATHERS.items() if weather.sunny] == ["sun"]
    assert [name for name, weather in WEATHERS.items() if weather.dark] == ["night"]


@pytest.mark.parametrize(("condition", "corner"), [("snow", ""), ("sun", "lensflare")])
def test_unknown_names_are_refused_with_the_allowed_ones(condition, corner):
    with pytest.raises(DatasetError, match="expected .*(cloud|motionblur)"):
        check_attributes(condition, corner)
