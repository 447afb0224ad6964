"""Resizing at prepare: the kernel of each kind, checked against loops."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.datasets.base import LoadedSample
from pipeline.datasets.resize import nearest, resize, resize_sample, target_size
from pipeline.modalities import KINDS


@pytest.mark.parametrize(
    ("size", "expected"),
    [(None, (6, 9)), (3, (3, 4)), ((5, 7), (5, 7)), (12, (12, 18)), (1, (1, 2))],
)
def test_sizes_after_resizing(size: object, expected: tuple[int, int]) -> None:
    assert target_size((6, 9), size) == expected


@given(st.integers(1, 12), st.integers(1, 12), st.integers(1, 12), st.integers(1, 12))
def test_nearest_takes_the_pixel_at_the_centre(h: int, w: int, new_h: int, new_w: int) -> None:
    array = np.arange(h * w).reshape(h, w)
    resized = nearest(array, (new_h, new_w))
    for y in range(new_h):
        for x in range(new_w):
            row, column = int((y + 0.5) * h / new_h), int((x + 0.5) * w / new_w)
            assert resized[y, x] == array[row, column]


def test_shrinking_averages_colour_and_wide_values() -> None:
    checks = np.indices((8, 8)).sum(axis=0) % 2
    small = resize((checks * 255).astype(np.uint8), (2, 2), KINDS["gray"])
    assert np.abs(small.astype(int) - 127).max() <= 2
    wide = resize((checks * 60_000).astype(np.uint16), (2, 2), KINDS["nir16"])
    assert wide.dtype == np.uint16
    assert np.abs(wide.astype(int) - 30_000).max() < 500
    colour = resize(np.full((8, 8, 3), (1, 2, 3), np.uint8), (3, 5), KINDS["rgb"])
    assert colour.shape == (3, 5, 3)
    assert (colour == (1, 2, 3)).all()


@given(st.integers(0, 2**16), st.floats(0, 1), st.integers(1, 10), st.integers(1, 10))
def test_depth_is_never_mixed_with_holes(seed: int, share: float, h: int, w: int) -> None:
    rng = np.random.default_rng(seed)
    depth = np.where(rng.random((9, 11)) < share, rng.integers(5_000, 6_000, (9, 11)), 0)
    resized = resize(depth.astype(np.uint16), (h, w), KINDS["depth"])
    assert resized.dtype == np.uint16
    assert set(np.unique(resized // 1000)) <= {0, 5, 6}
    assert ((resized == 0) | ((resized >= 4_999) & (resized <= 6_000))).all()


def test_depth_without_holes_is_plain_bilinear() -> None:
    ramp = np.tile(np.arange(1, 9, dtype=np.uint16) * 1000, (4, 1))
    resized = resize(ramp, (2, 4), KINDS["depth"])
    assert (np.diff(resized[0].astype(int)) > 0).all()
    assert abs(int(resized[0, 1]) - 3500) < 100


def test_sparse_kinds_and_labels_keep_their_values() -> None:
    rng = np.random.default_rng(0)
    points = (rng.random((10, 10)) < 0.2) * rng.integers(1, 60_000, (10, 10))
    sample = LoadedSample(
        {
            "lidar": points.astype(np.uint16),
            "event": rng.integers(0, 256, (10, 10, 3), dtype=np.uint8),
        },
        rng.choice(np.array([0, 7, 255], np.uint8), (10, 10)),
    )
    small = resize_sample(sample, 4, KINDS)
    assert small.label.shape == (4, 4)
    assert set(np.unique(small.label)) <= {0, 7, 255}
    assert set(np.unique(small.arrays["lidar"])) <= set(np.unique(points))
    before = {tuple(p) for p in sample.arrays["event"].reshape(-1, 3)}
    assert {tuple(p) for p in small.arrays["event"].reshape(-1, 3)} <= before


def test_the_same_size_is_the_same_sample() -> None:
    sample = LoadedSample({"gray": np.zeros((4, 5), np.uint8)}, np.zeros((4, 5), np.uint8))
    assert resize_sample(sample, 4, KINDS) is sample
    assert resize_sample(sample, None, KINDS) is sample
