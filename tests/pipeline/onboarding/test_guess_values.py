"""Kinds, units and ranges guessed from values."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pipeline.errors import DatasetError
from pipeline.modalities import KINDS
from pipeline.onboarding.guess_streams import Stream
from pipeline.onboarding.guess_values import guess_modality, read_stream

RNG = np.random.default_rng(17)
RAMP = np.linspace(0.0, 1.0, 600).reshape(20, 30)
GREY = (RAMP * 240).astype(np.uint8)
COLOUR = RNG.integers(0, 256, (20, 30, 3), dtype=np.uint8)
WIDE = (500 + RAMP * 59_000).astype(np.uint16)
MARKED = np.where(RAMP > 0.9, 65_535, 300 + RAMP * 20_000).astype(np.uint16)


def guess(tmp_path: Path, family: str, array: np.ndarray) -> Any:
    ending = "tif" if array.dtype.kind == "f" else "png"
    path = tmp_path / f"a.{ending}"
    if array.dtype.kind == "f" and array.ndim == 3:
        path = tmp_path / "a.npy"
        np.save(path, array)
    else:
        Image.fromarray(array).save(path)
    return guess_modality(Stream("x/*", family, "x"), [path])


@pytest.mark.parametrize(
    ("family", "array", "kind", "rule"),
    [
        ("rgb", COLOUR, "rgb", {}),
        ("rgb", GREY, "gray", {}),
        ("", COLOUR, "rgb", {}),
        ("", WIDE, "gray16", {}),
        ("depth", WIDE, "depth", {}),
        ("depth", (RAMP * 80).astype(np.uint16), "depth", {"unit": "m"}),
        ("depth", (RAMP * 9).astype(np.float32), "depth", {"bits": 32, "unit": "m"}),
        ("depth", (RAMP * 9000).astype(np.float32), "depth", {"bits": 32}),
        ("depth", MARKED, "depth", {"invalid": [65_535]}),
        ("depth", COLOUR, "hha", {}),
        ("depth", GREY, "gray", {}),
        ("disparity", WIDE, "disparity", {}),
        ("disparity", GREY, "gray", {}),
        ("lidar", WIDE, "lidar", {}),
        ("lidar", GREY, "lidar_image", {}),
        ("event", GREY, "event", {}),
        ("thermal", GREY, "thermal", {}),
        ("thermal", WIDE, "thermal16", {}),
        ("thermal", COLOUR, "thermal", {"channel": "mean"}),
        ("nir", WIDE, "nir16", {}),
        ("nir", np.repeat(GREY[:, :, None], 3, axis=2), "nir", {}),
    ],
)
def test_kinds_by_name_and_values(
    tmp_path: Path, family: str, array: np.ndarray, kind: str, rule: dict
) -> None:
    modality = guess(tmp_path, family, array)
    assert (modality.kind, modality.rule) == (kind, rule)
    assert modality.kind in KINDS
    assert modality.sizes == {(20, 30)}


def test_a_ten_bit_camera_gets_a_range_of_its_own(tmp_path: Path) -> None:
    modality = guess(tmp_path, "nir", (RAMP * 1023).astype(np.uint16))
    assert 1023 <= modality.max_value <= 1200
    assert guess(tmp_path, "nir", WIDE).max_value is None
    assert guess(tmp_path, "nir", GREY).max_value is None


def test_floats_are_spread_over_the_stored_range(tmp_path: Path) -> None:
    modality = guess(tmp_path, "", (RAMP * 4 - 1).astype(np.float32))
    assert modality.kind == "gray16"
    assert modality.rule["offset"] == 1.0
    assert modality.rule["scale"] * 4.0 == pytest.approx(65_535, rel=0.01)
    colour = guess(tmp_path, "", RNG.random((4, 5, 3)).astype(np.float32))
    assert (colour.kind, colour.rule["bits"]) == ("rgb", 32)


def test_the_reason_says_what_was_seen(tmp_path: Path) -> None:
    modality = guess(tmp_path, "depth", np.where(RAMP < 0.25, 0, WIDE).astype(np.uint16))
    assert "16-bit grey 30 x 20" in modality.reason
    assert "25% are 0" in modality.reason
    assert "read as mm, so up to about 59.5 m" in modality.reason


def test_unreadable_files_are_passed_over(tmp_path: Path) -> None:
    good, bad = tmp_path / "good.png", tmp_path / "bad.png"
    Image.fromarray(GREY).save(good)
    bad.write_bytes(b"x")
    assert read_stream([bad, good]).sizes == {(20, 30)}
    with pytest.raises(DatasetError, match=r"no file of this modality can be read: .*bad.png"):
        read_stream([bad])
