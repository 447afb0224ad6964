"""Pixel values against upstream's processors, and the rules for pictures that upstream refuses."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from teacher.preprocessing.config import Preprocessing
from teacher.preprocessing.images import to_pixels

ATOL = 1e-5
IMAGE, DEPTH = Preprocessing("image"), Preprocessing("depth")
THERMAL = Preprocessing("thermal")


@pytest.mark.parametrize(
    ("name", "file", "settings"),
    [
        ("image_0", "image_0_97x61.png", IMAGE),
        ("image_0.antialias_true", "image_0_97x61.png", Preprocessing("image", antialias=True)),
        ("thermal_0", "thermal_0_120x97_L.png", THERMAL),
        ("depth_0", "depth_0_160x121_mm16.png", DEPTH),
        ("depth_0.max_depth_0", "depth_0_160x121_mm16.png", Preprocessing("depth", max_depth_m=0)),
        ("depth_0.max_depth_4", "depth_0_160x121_mm16.png", Preprocessing("depth", max_depth_m=4)),
    ],
)
def test_pixel_values_equal_the_golden_samples(
    goldens: Path, name: str, file: str, settings: Preprocessing
) -> None:
    expected = load_file(goldens / "preprocess.safetensors")[name]
    found = to_pixels([goldens / file], settings)
    assert found.shape == (1, 3, 224, 224)
    torch.testing.assert_close(found[0, :, 80:112, 80:112], expected, atol=ATOL, rtol=0)


def cases(folder: Path) -> list[tuple[str, Path, Preprocessing]]:
    """(golden name, input file, settings) of every picture in the full golden set."""
    meta = json.loads((folder / "meta.json").read_text())
    found = []
    for name, entry in meta.items():
        for field in ("file", "file_rgb", "file_L"):
            tower = name.split("_")[0]
            if field not in entry or tower not in ("image", "thermal", "depth"):
                continue
            path = folder / "inputs" / entry[field]
            found += [
                (name, path, Preprocessing(tower)),
                (f"{name}.antialias_true", path, Preprocessing(tower, antialias=True)),
            ]
            if tower == "depth":
                found += [
                    (f"{name}.max_depth_{m}", path, Preprocessing(tower, max_depth_m=m))
                    for m in (0, 4)
                ]
    return found


def test_pixel_values_equal_the_full_golden_set(shared: Path) -> None:
    folder = shared / "languagebind" / "preprocess"
    expected = load_file(folder / "expected.safetensors")
    checked = 0
    for name, path, settings in cases(folder):
        found = to_pixels([path], settings)[0]
        for key, part in ((name, found), (f"{name}.crop80_144", found[:, 80:144, 80:144])):
            if key in expected:
                torch.testing.assert_close(part, expected[key], atol=ATOL, rtol=0)
                checked += 1
    assert checked >= 20


def test_a_batch_of_mixed_sizes_equals_single_samples() -> None:
    rng = np.random.default_rng([1])
    sizes = [(64, 64), (30, 50), (64, 64), (50, 30)]
    pictures = [rng.integers(0, 256, (*size, 3), dtype=np.uint8) for size in sizes]
    batch = to_pixels(pictures, IMAGE)
    for picture, row in zip(pictures, batch, strict=True):
        assert torch.equal(to_pixels([picture], IMAGE)[0], row)


def test_one_channel_is_replicated_and_16_bit_scaled() -> None:
    grey = np.random.default_rng([2]).integers(0, 256, (40, 40), dtype=np.uint8)
    from_grey = to_pixels([grey], IMAGE)
    assert torch.equal(from_grey, to_pixels([np.stack([grey] * 3, axis=-1)], IMAGE))
    from_16_bit = to_pixels([grey.astype(np.uint16) * 257], IMAGE)
    torch.testing.assert_close(from_16_bit, from_grey, atol=1e-5, rtol=0)


def test_a_file_is_its_array_and_one_that_16_bits_cannot_hold_is_refused(tmp_path: Path) -> None:
    depth_mm = np.array([[1_000, 65_535], [2_000, 3_000]], np.uint16).repeat(8, 0)
    Image.fromarray(depth_mm).save(tmp_path / "d.png")
    assert torch.equal(to_pixels([tmp_path / "d.png"], DEPTH), to_pixels([depth_mm], DEPTH))
    Image.fromarray(depth_mm.astype(np.int32) + 1).save(tmp_path / "far.tif")
    with pytest.raises(ValueError, match=r"sample 1: .*far\.tif: expected values 0\.\.65535"):
        to_pixels([tmp_path / "d.png", tmp_path / "far.tif"], DEPTH)


def test_depth_holes_far_fills_holes_with_the_largest_depth() -> None:
    depth = np.full((224, 224), 2_000, np.uint16)
    depth[:112] = 0
    upstream = to_pixels([depth], DEPTH)[0, 0, 0, 0]
    far = to_pixels([depth], Preprocessing("depth", holes="far"))[0, 0, 0, 0]
    saturated = to_pixels([np.full_like(depth, 20_000)], DEPTH)[0, 0, 0, 0]
    assert far == saturated
    assert upstream < far
    own_maximum = to_pixels([depth], Preprocessing("depth", holes="far", max_depth_m=0))
    assert torch.allclose(own_maximum[0, 0], saturated, atol=1e-5)


def test_size_px_sets_the_input_size() -> None:
    picture = np.zeros((100, 60, 3), np.uint8)
    assert to_pixels([picture], Preprocessing("image", size_px=64)).shape == (1, 3, 64, 64)


@pytest.mark.parametrize(
    ("sample", "settings", "message"),
    [
        (np.zeros((4, 4, 3), np.float32), IMAGE, "sample 0: expected a uint8 or uint16 array"),
        (np.zeros((4, 4, 2), np.uint8), IMAGE, r"sample 0: expected \(H, W\) or \(H, W, 3\)"),
        (np.zeros((4, 4, 3), np.uint16), DEPTH, r"sample 0: expected \(H, W\) depth"),
    ],
)
def test_other_forms_are_refused(sample: object, settings: Preprocessing, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        to_pixels([sample], settings)  # type: ignore[list-item]
