"""The modality registry: stored forms are checked, values keep their meaning."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import ConfigError
from pipeline.modalities import KINDS, check_array, spec_for, to_unit_range


def test_overrides_replace_only_what_is_given() -> None:
    spec = spec_for("depth", "modalities.depth.kind", tower=None, max_value=20_000.0)
    assert (spec.max_value, spec.tower) == (20_000.0, "depth")
    assert spec_for("rgb", "x") == KINDS["rgb"]


def test_an_unknown_kind_names_the_field_and_the_allowed_ones() -> None:
    with pytest.raises(ConfigError) as error:
        spec_for("radar", "modalities.radar.kind")
    assert str(error.value).startswith("modalities.radar.kind: unknown kind 'radar'")
    assert all(kind in str(error.value) for kind in KINDS)


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_check_array_takes_the_stored_form_and_nothing_else(kind: str) -> None:
    spec = KINDS[kind]
    good = np.zeros((4, 5) if spec.channels == 1 else (4, 5, 3), spec.dtype)
    assert check_array(good, spec) is None
    for bad in (good.astype(np.float32), good[0], good[..., None], good[..., :2, None]):
        assert f"{spec.dtype}, found {bad.shape} {bad.dtype}" in str(check_array(bad, spec))


def test_linear_values_scale_and_saturate() -> None:
    values = np.array([[0, 51, 255]], np.uint8)
    np.testing.assert_allclose(to_unit_range(values, KINDS["gray"]), [[0, 0.2, 1]], rtol=1e-6)
    dim = spec_for("gray", "x", max_value=51.0)
    np.testing.assert_allclose(to_unit_range(values, dim), [[0, 1, 1]], rtol=1e-6)


@given(st.integers(0, 65_535), st.integers(0, 65_535))
def test_metric_depth_keeps_order_and_holes(near: int, far: int) -> None:
    near, far = sorted((near, far))
    values = to_unit_range(np.array([[near, far, 0]], np.uint16), KINDS["depth"])
    assert values.dtype == np.float32
    assert 0.0 <= values[0, 0] <= values[0, 1] <= 1.0
    assert values[0, 2] == 0.0
    if far > near and near < KINDS["depth"].max_value:
        assert values[0, 0] < values[0, 1]


def test_log_transfer_against_the_formula_in_float64() -> None:
    millimetres = np.array([[0, 1, 1_000, 10_000, 64_999]], np.uint16)
    metres = millimetres.astype(np.float64) / 1000
    expected = np.log(1 + metres) / np.log(1 + 65.0)
    np.testing.assert_allclose(to_unit_range(millimetres, KINDS["depth"]), expected, rtol=1e-5)
