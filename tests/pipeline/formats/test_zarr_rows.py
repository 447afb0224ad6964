"""Single rows of an object: the numbers that zarr reads, and damage seen wherever it lies."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import CorruptTarget
from pipeline.formats.zarr_array import RowArray
from pipeline.formats.zarr_rows import ObjectRows

ROWS = 6
CHUNK_BYTES = 3 * 2 * 2 + 4
"""Of a (3, 2) float16 row, with its checksum."""


def made(folder: Path, row_shape: tuple[int, ...], dtype: str = "float16") -> RowArray:
    return RowArray(folder / "x.zarr", "a", row_shape, dtype, ROWS, by_row=True)


@given(
    row_shape=st.sampled_from([(1, 1), (3, 2), (2, 3, 2), (1, 4, 5)]),
    dtype=st.sampled_from(["float16", "float32"]),
    num_rows=st.integers(1, ROWS),
)
def test_rows_equal_what_zarr_reads(
    row_shape: tuple[int, ...],
    dtype: str,
    num_rows: int,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    array = made(tmp_path_factory.mktemp("rows"), row_shape, dtype)
    array.write_object(0, np.random.default_rng(0).random((num_rows, *row_shape)).astype(dtype))
    whole, opened = array.read_object(0), array.open_rows(array.object_path(0))
    for row in range(ROWS):
        found = opened[row]
        assert (found.shape, found.dtype) == (row_shape, np.dtype(dtype))
        np.testing.assert_array_equal(found, whole[row])


def test_a_flipped_byte_is_detected_by_exactly_the_rows_it_touches(tmp_path: Path) -> None:
    array = made(tmp_path, (3, 2))
    rows = np.random.default_rng(0).random((ROWS, 3, 2)).astype(np.float16)
    whole, file = array.encode(rows), tmp_path / "object"
    for position in range(len(whole)):
        damaged = bytearray(whole)
        damaged[position] ^= 1
        file.write_bytes(bytes(damaged))
        if position >= ROWS * CHUNK_BYTES:
            with pytest.raises(CorruptTarget, match="index"):
                array.open_rows(file)
            continue
        opened = array.open_rows(file)
        for row in range(ROWS):
            if row == position // CHUNK_BYTES:
                with pytest.raises(CorruptTarget, match=rf"chunk {row}: .*precompute"):
                    opened[row]
            else:
                np.testing.assert_array_equal(opened[row], rows[row])


@pytest.mark.parametrize("kept", [0, 3, 50, 150])
def test_a_truncated_object_is_refused(tmp_path: Path, kept: int) -> None:
    array, file = made(tmp_path, (3, 2)), tmp_path / "object"
    file.write_bytes(array.encode(np.ones((ROWS, 3, 2)))[:kept])
    with pytest.raises(CorruptTarget, match="object"):
        array.open_rows(file)


def test_an_object_with_other_chunks_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "object"
    file.write_bytes(made(tmp_path, (3, 2)).encode(np.ones((ROWS, 3, 2))))
    opened = ObjectRows.open(file, ROWS, (2, 2), "float16")
    with pytest.raises(CorruptTarget, match="chunk 1 of 16 bytes"):
        opened[1]
    with pytest.raises(FileNotFoundError):
        ObjectRows.open(tmp_path / "none", ROWS, (3, 2), "float16")


def test_an_open_object_outlives_its_file(tmp_path: Path) -> None:
    """A copy may leave the bounded cache while it is in use."""
    array, file = made(tmp_path, (3, 2)), tmp_path / "object"
    file.write_bytes(array.encode(np.ones((ROWS, 3, 2))))
    opened = array.open_rows(file)
    os.unlink(file)
    assert opened[3].sum() == 6
