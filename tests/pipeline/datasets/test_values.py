"""What numbers in files mean: units, scales, holes, channels, bit depths."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from pipeline.datasets.values import ValueRule, read_values
from pipeline.formats.image_file import BadImageError
from pipeline.modalities import KINDS

Save = Callable[[Path, np.ndarray], Path]
FORMS = [
    ("uint8", 1, "gray"),
    ("uint8", 3, "rgb"),
    ("uint16", 1, "gray16"),
]


@given(
    form=st.sampled_from(FORMS),
    height=st.integers(1, 9),
    width=st.integers(1, 9),
    seed=st.integers(0, 2**16),
    ending=st.sampled_from(["png", "tif", "npy"]),
)
def test_stored_forms_are_read_back_exactly(
    tmp_path_factory: pytest.TempPathFactory,
    form: tuple[str, int, str],
    height: int,
    width: int,
    seed: int,
    ending: str,
) -> None:
    dtype, channels, kind = form
    shape = (height, width) if channels == 1 else (height, width, 3)
    array = np.random.default_rng(seed).integers(0, np.iinfo(dtype).max + 1, shape, dtype=dtype)
    path = tmp_path_factory.mktemp("v") / f"a.{ending}"
    if ending == "npy":
        np.save(path, np.asfortranarray(array) if seed % 2 else array)
    else:
        Image.fromarray(array).save(path)
    stored_values = read_values(path, KINDS[kind], ValueRule())
    assert stored_values.dtype == array.dtype
    np.testing.assert_array_equal(stored_values, array)


@pytest.mark.parametrize(
    ("rule", "raw", "stored"),
    [
        ({}, [0, 1, 65_535], [0, 1, 65_535]),
        ({"unit": "cm"}, [0, 1, 6_554], [0, 10, 65_535]),
        ({"unit": "m", "scale": 1 / 256}, [0, 256, 2_560], [0, 1_000, 10_000]),
        ({"invalid": [65_535, 1]}, [1, 2, 65_535], [0, 2, 0]),
        ({"offset": -10.0}, [5, 10, 15], [0, 0, 5]),
        # A disparity of 100 / 256 px with 0.2 m * 2000 px is 1024 m; 25600 / 256 px is 4 m.
        ({"unit": "m", "inverse": True, "scale": 0.2 * 2000 * 256}, [0, 25_600], [0, 4_000]),
        ({"inverse": True, "scale": 1000, "offset": -1.0}, [0, 1, 3], [0, 0, 500]),
    ],
)
def test_metric_rules(tmp_path: Path, save: Save, rule: dict, raw: list, stored: list) -> None:
    path = save(tmp_path / "d.png", np.array([raw], np.uint16))
    stored_values = read_values(path, KINDS["depth"], ValueRule.model_validate(rule))
    assert stored_values[0].tolist() == stored


def test_floating_point_metres_with_holes(tmp_path: Path) -> None:
    metres = np.array([[np.nan, np.inf, -np.inf, 0, -3, 1.5, 70]], np.float32)
    rule = ValueRule(bits=32, unit="m")
    np.save(tmp_path / "d.npy", metres)
    Image.fromarray(metres).save(tmp_path / "d.tif")
    for name in ("d.npy", "d.tif"):
        stored_values = read_values(tmp_path / name, KINDS["depth"], rule)
        assert stored_values[0].tolist() == [0, 0, 0, 0, 0, 1500, 65_535]
    with pytest.raises(BadImageError, match=r"expected 16 bits a channel, found F \(32\)"):
        read_values(tmp_path / "d.tif", KINDS["depth"], ValueRule())


def test_16_bits_scale_into_8(tmp_path: Path, save: Save) -> None:
    rule = ValueRule(bits=16, scale=255 / 65_535)
    grey = np.array([[0, 257, 65_535, 30_000]], np.uint16)
    path = save(tmp_path / "g.png", grey)
    assert read_values(path, KINDS["nir"], rule)[0].tolist() == [0, 1, 255, 117]
    colour = np.random.default_rng(0).integers(0, 65_536, (7, 5, 3), dtype=np.uint16)
    path = save(tmp_path / "c.png", colour)
    np.testing.assert_array_equal(read_values(path, KINDS["rgb"], rule), np.rint(colour / 257))
    alpha = np.dstack([colour, colour[..., :1]])
    path = save(tmp_path / "a.png", alpha)
    np.testing.assert_array_equal(read_values(path, KINDS["rgb"], rule), np.rint(colour / 257))


def test_8_bits_widen_into_16(tmp_path: Path, save: Save) -> None:
    path = save(tmp_path / "d.png", np.array([[0, 1, 255]], np.uint8))
    rule = ValueRule(bits=8, unit="m", scale=0.2)
    assert read_values(path, KINDS["depth"], rule)[0].tolist() == [0, 200, 51_000]
    with pytest.raises(BadImageError, match=r"expected 16 bits a channel, found L \(8\)"):
        read_values(path, KINDS["depth"], ValueRule(unit="m"))


@pytest.mark.parametrize(
    ("channel", "expected"), [("first", 10), ("second", 20), ("third", 33), ("mean", 21)]
)
def test_channel_rules(tmp_path: Path, save: Save, channel: str, expected: int) -> None:
    path = save(tmp_path / "c.png", np.full((2, 3, 3), (10, 20, 33), np.uint8))
    stored_values = read_values(path, KINDS["gray"], ValueRule.model_validate({"channel": channel}))
    np.testing.assert_array_equal(stored_values, np.full((2, 3), expected))
    with pytest.raises(BadImageError, match="expected a grey image, found colour"):
        read_values(path, KINDS["gray"], ValueRule())


@pytest.mark.parametrize(
    ("kind", "rule", "problem"),
    [
        ("rgb", {"unit": "m"}, "unit: kind 'rgb' holds code values"),
        ("nir", {"bits": 16}, r"bits: 16-bit files do not fit .*full range: 0.00389105"),
        ("depth", {"bits": 32}, "bits: 32-bit files"),
    ],
)
def test_rules_that_cannot_serve_are_named(kind: str, rule: dict, problem: str) -> None:
    stored_values = ValueRule.model_validate(rule).problem(KINDS[kind])
    assert stored_values is not None
    assert re.match(problem, stored_values)
    assert ValueRule(bits=16, unit="mm").problem(KINDS["depth"]) is None
