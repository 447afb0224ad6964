"""Zarr arrays of rows: layout, growth, whole objects, damage seen."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.errors import CorruptTarget
from pipeline.formats.zarr_array import RowArray
from pipeline.storage.files import sha256_file

FLAT, DENSE, VIEWS = (3,), (2, 3), (4, 2, 3)


def array(folder: Path, row_shape: tuple[int, ...] = FLAT, object_rows: int = 32) -> RowArray:
    dense = len(row_shape) > 1
    dims = ("view", "cell", "dim")[-len(row_shape) :]
    return RowArray(folder / "x.zarr", "train/a", row_shape, "float16", object_rows, dims, dense)


def rows(num: int, row_shape: tuple[int, ...], seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).random((num, *row_shape)).astype(np.float16)


@pytest.mark.parametrize("row_shape", [FLAT, DENSE])
def test_write_returns_the_digest_of_the_file_and_read_gives_the_rows(
    tmp_path: Path, row_shape: tuple[int, ...]
) -> None:
    made, wanted = array(tmp_path, row_shape), rows(20, row_shape)
    assert made.write_object(1, wanted).sha256 == sha256_file(made.object_path(1))
    found = made.read_object(1)
    np.testing.assert_array_equal(found[:20], wanted)
    assert np.isnan(found[20:]).all()
    assert found.shape == (32, *row_shape)


def test_metadata_is_as_documented(tmp_path: Path) -> None:
    array(tmp_path).write_object(0, rows(32, FLAT))
    meta = json.loads((tmp_path / "x.zarr/train/a/zarr.json").read_text())
    assert meta["zarr_format"] == 3
    assert meta["fill_value"] == "NaN"
    assert meta["chunk_grid"]["configuration"]["chunk_shape"] == [32, 3]
    assert [codec["name"] for codec in meta["codecs"]] == ["bytes", "crc32c"]
    assert meta["dimension_names"] == ["row", "dim"]


def test_dense_arrays_have_inner_chunks_with_checksums(tmp_path: Path) -> None:
    array(tmp_path, DENSE).write_object(0, rows(32, DENSE))
    meta = json.loads((tmp_path / "x.zarr/train/a/zarr.json").read_text())
    (sharding,) = meta["codecs"]
    inner = sharding["configuration"]
    assert meta["chunk_grid"]["configuration"]["chunk_shape"] == [32, 2, 3]
    assert inner["chunk_shape"] == [1, 2, 3]
    assert [codec["name"] for codec in inner["codecs"]] == ["bytes", "crc32c"]
    assert [codec["name"] for codec in inner["index_codecs"]] == ["bytes", "crc32c"]


def test_each_view_of_a_dense_row_is_an_inner_chunk(tmp_path: Path) -> None:
    made, wanted = array(tmp_path, VIEWS, object_rows=10), rows(10, VIEWS)
    assert made.inner_shape == (1, 1, 2, 3)
    made.write_object(2, wanted)
    np.testing.assert_array_equal(made.read_object(2), wanted)
    opened = made.open_rows(made.object_path(2))
    for row in range(10):
        np.testing.assert_array_equal(opened[row], wanted[row])
        for view in range(4):
            np.testing.assert_array_equal(opened[row, view], wanted[row, view])


@settings(max_examples=10)
@given(order=st.permutations(range(4)), row_shape=st.sampled_from([FLAT, DENSE]))
def test_any_order_of_writes_gives_the_same_array(
    order: list[int], row_shape: tuple[int, ...], tmp_path_factory: pytest.TempPathFactory
) -> None:
    made = array(tmp_path_factory.mktemp("z"), row_shape)
    for index in order:
        made.write_object(index, rows(32, row_shape, seed=index))
    opened = zarr.open_array(made.folder, path=made.name, mode="r")
    wanted = np.concatenate([rows(32, row_shape, seed=index) for index in range(4)])
    np.testing.assert_array_equal(opened[:], wanted)


def test_metadata_grows_and_never_shrinks(tmp_path: Path) -> None:
    made = array(tmp_path)
    made.write_object(3, rows(32, FLAT))
    before = made.object_path(3).read_bytes()
    made.write_object(0, rows(32, FLAT))
    assert zarr.open_array(made.folder, path=made.name, mode="r").shape == (128, 3)
    assert made.object_path(3).read_bytes() == before


def test_a_missing_object_reads_as_nan(tmp_path: Path) -> None:
    made = array(tmp_path)
    made.write_object(1, rows(32, FLAT))
    assert np.isnan(made.read_object(0)).all()
    assert not made.object_path(0).exists()
    assert made.object_path(1).stat().st_size == made.object_bytes


def test_rows_of_nan_and_zeros_are_written(tmp_path: Path) -> None:
    for index, value in enumerate((np.nan, 0.0)):
        made = array(tmp_path, DENSE)
        made.write_object(index, np.full((32, *DENSE), value, np.float16))
        assert made.object_path(index).stat().st_size == made.object_bytes


def test_corrupted_metadata_raises_and_is_not_overwritten(tmp_path: Path) -> None:
    made = array(tmp_path)
    made.write_object(0, rows(32, FLAT))
    (made.folder / made.name / "zarr.json").write_text("{")
    with pytest.raises(CorruptTarget, match="expected the metadata of a Zarr array"):
        made.write_object(1, rows(32, FLAT))


@pytest.mark.parametrize("row_shape", [FLAT, DENSE])
def test_every_flipped_byte_of_an_object_is_detected(
    tmp_path: Path, row_shape: tuple[int, ...]
) -> None:
    made = array(tmp_path, row_shape)
    whole = made.encode(rows(32, row_shape))
    for place in range(0, len(whole), 7):
        damaged = bytearray(whole)
        damaged[place] ^= 1
        with pytest.raises(CorruptTarget, match="here: expected a whole Zarr object"):
            made.decode(bytes(damaged), "here")
