"""Renderings: three channels of uint8, holes black, the formulas of the table, and who gets which."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, get_args

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from numpy.typing import NDArray

from pipeline.errors import ConfigError
from pipeline.modalities import KINDS, RENDERINGS, Rendering, TowerName, allowed_renderings
from teacher.preprocessing.rendering import render, rendering_identity, tower_input

ALL: tuple[TowerName, ...] = ("image", "depth", "thermal")
RENDERED = [
    (kind, rendering)
    for kind, spec in KINDS.items()
    for rendering in allowed_renderings(spec)
    if rendering != "as_stored"
]


def stored(kind: str) -> st.SearchStrategy[NDArray[Any]]:
    sides = arrays.array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=9)
    return arrays.arrays(np.dtype(KINDS[kind].dtype), sides)


@pytest.mark.parametrize(("kind", "rendering"), RENDERED)
@given(data=st.data())
def test_a_rendering_is_grey_in_three_channels_and_only_holes_are_black(
    kind: str, rendering: Rendering, data: st.DataObject
) -> None:
    array = data.draw(stored(kind))
    before = array.copy()
    image = render(array, KINDS[kind], rendering)
    assert (image.shape, image.dtype) == ((*array.shape, 3), np.uint8)
    assert (image == image[..., :1]).all()
    assert (image[array > 0] > 0).all()
    if rendering != "sparse_range":
        assert (image[array == 0] == 0).all()
    np.testing.assert_array_equal(render(array, KINDS[kind], rendering), image)
    np.testing.assert_array_equal(array, before)


@pytest.mark.parametrize(("kind", "rendering"), RENDERED)
@given(data=st.data())
def test_the_order_of_measured_values_is_kept(
    kind: str, rendering: Rendering, data: st.DataObject
) -> None:
    array = data.draw(stored(kind))
    grey = render(array, KINDS[kind], rendering)[..., 0].astype(int)[array > 0]
    steps = np.diff(grey[np.argsort(array[array > 0], kind="stable")])
    nearer_is_brighter = rendering in ("inverse_depth", "sparse_range")
    assert (steps <= 0).all() if nearer_is_brighter else (steps >= 0).all()


@pytest.mark.parametrize(("kind", "rendering"), RENDERED)
def test_an_image_without_a_measurement_is_black(kind: str, rendering: Rendering) -> None:
    empty = np.zeros((3, 2), KINDS[kind].dtype)
    assert not render(empty, KINDS[kind], rendering).any()


@pytest.mark.parametrize("value", [1, 200, 255])
@pytest.mark.parametrize("shape", [(1, 1), (3, 4)])
def test_an_image_of_one_value_is_mid_grey(value: int, shape: tuple[int, int]) -> None:
    image = render(np.full(shape, value, np.uint8), KINDS["thermal"], "grey_stretched")
    assert np.unique(image).tolist() == [128]


@given(stored("nir16"))
def test_stretching_follows_the_formula_of_sorted_values(array: NDArray[np.uint16]) -> None:
    image = render(array, KINDS["nir16"], "grey_stretched")[..., 0]
    measured = sorted(int(v) for v in array.reshape(-1) if v)
    if not measured:
        return
    low = measured[-(-2 * len(measured) // 100) - 1]
    high = measured[-(-98 * len(measured) // 100) - 1]
    for value, grey in zip(array.reshape(-1).tolist(), image.reshape(-1).tolist(), strict=True):
        if value and high > low:
            unit = min(max((value - low) / (high - low), 0.0), 1.0)
            assert abs(grey - (1 + 254 * unit)) <= 0.5 + 1e-9


def test_outliers_do_not_darken_the_rest_and_full_range_is_used() -> None:
    array = np.linspace(1_000, 1_500, 1_000).astype(np.uint16).reshape(20, 50)
    array[0, 0], array[1, 1] = 65_535, 1
    grey = render(array, KINDS["thermal16"], "grey_stretched")[..., 0]
    assert (grey.min(), grey.max()) == (1, 255)
    assert (grey[0, 0], grey[1, 1]) == (255, 1)
    assert 120 <= np.median(grey) <= 136


def test_distances_have_the_same_grey_in_every_image() -> None:
    array = np.array([[0, 1, 5_000, 45_000, 65_535]], np.uint16)
    grey = render(array, KINDS["depth"], "inverse_depth")[0, :, 0]
    assert grey.tolist() == [0, 255, 128, 26, 18]
    alone = render(array[:, 2:3], KINDS["depth"], "inverse_depth")
    assert alone.tolist() == [[[128, 128, 128]]]


def test_metric_depth_saturates_at_the_modality_s_largest_value() -> None:
    spec = replace(KINDS["depth"], max_value=10_000.0)
    array = np.array([[0, 1, 5_000, 10_000, 65_535]], np.uint16)
    grey = render(array, spec, "metric_depth")[0, :, 0]
    assert grey.tolist() == [0, 1, 128, 255, 255]


def test_a_lidar_point_fills_the_holes_around_it_and_the_nearest_wins() -> None:
    array = np.zeros((9, 9), np.uint16)
    array[4, 3], array[4, 5] = 45_000, 5_000
    grey = render(array, KINDS["lidar"], "sparse_range")[..., 0]
    assert grey[4].tolist() == [0, 0, 26, 26, 128, 128, 128, 0, 0]
    assert not grey[[0, 1, 2, 6, 7, 8]].any()
    wide = np.zeros((448, 448), np.uint16)
    wide[0, 0] = 5_000
    assert (render(wide, KINDS["lidar"], "sparse_range")[..., 0] > 0).sum() == 9


def test_stored_values_are_not_touched() -> None:
    for kind, spec in KINDS.items():
        array = np.ones((2, 2) if spec.channels == 1 else (2, 2, 3), spec.dtype)
        assert render(array, KINDS[kind], "as_stored") is array


@pytest.mark.parametrize(
    ("kind", "rendering"), [("rgb", "grey_stretched"), ("nir", "inverse_depth")]
)
def test_a_rendering_that_cannot_read_the_kind_is_refused(kind: str, rendering: Any) -> None:
    spec = KINDS[kind]
    array = np.ones((2, 2) if spec.channels == 1 else (2, 2, 3), spec.dtype)
    with pytest.raises(ConfigError, match=f"kind '{kind}' has .* expected one of as_stored"):
        render(array, spec, rendering)


def test_every_kind_has_a_rendering_that_can_read_it() -> None:
    assert set(RENDERINGS) == set(KINDS)
    assert all(RENDERINGS[kind] in allowed_renderings(spec) for kind, spec in KINDS.items())
    used = {r for spec in KINDS.values() for r in allowed_renderings(spec)}
    assert used == set(get_args(Rendering))


@pytest.mark.parametrize(
    ("kind", "towers", "expected"),
    [
        ("rgb", ALL, ("image", "as_stored")),
        ("thermal", ALL, ("thermal", "as_stored")),
        ("depth", ALL, ("depth", "as_stored")),
        ("nir", ALL, ("image", "grey_stretched")),
        ("thermal", ("image", "depth"), ("image", "grey_stretched")),
        ("thermal16", ("image",), ("image", "grey_stretched")),
        ("depth", ("image",), ("image", "inverse_depth")),
        ("lidar", ("image",), ("image", "sparse_range")),
        ("hha", ("image",), ("image", "as_stored")),
        ("thermal", ("depth",), ("thermal", "as_stored")),
    ],
)
def test_the_tower_and_rendering_of_a_kind(
    kind: str, towers: tuple[TowerName, ...], expected: tuple[str, str]
) -> None:
    assert tower_input(KINDS[kind], towers) == expected


def test_what_the_config_says_wins() -> None:
    depth, thermal = KINDS["depth"], KINDS["thermal16"]
    assert tower_input(depth, ALL, tower="image") == ("image", "inverse_depth")
    assert tower_input(depth, ALL, tower="image", rendering="as_stored") == ("image", "as_stored")
    assert tower_input(thermal, ALL, rendering="grey_stretched") == ("thermal", "grey_stretched")
    assert tower_input(thermal, ("image",), tower="thermal") == ("thermal", "as_stored")


def test_stored_values_add_nothing_to_a_fingerprint() -> None:
    assert rendering_identity("as_stored") == {}
    identities = [rendering_identity(name) for name in get_args(Rendering)]
    assert len({str(identity) for identity in identities}) == len(identities)
