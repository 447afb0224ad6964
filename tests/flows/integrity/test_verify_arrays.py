"""An array's description: what it says of an object's length, what is wrong with it, put back as it was."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from flows.integrity.verify_arrays import array_problem, object_bytes, restore_description
from pipeline.formats.zarr_array import RowArray
from pipeline.storage.files import read_json, write_json


def written(folder: Path, row_shape: tuple[int, ...], object_rows: int) -> RowArray:
    array = RowArray(folder / "a.zarr", "train/x", row_shape, "float16", object_rows)
    for index in (0, 2):
        array.write_object(index, np.ones((3, *row_shape)))
    return array


@pytest.mark.parametrize(("shape", "rows"), [((5,), 8), ((4, 5), 32), ((4, 5), 8), ((2, 4, 5), 48)])
def test_object_bytes_is_the_length_of_a_written_object(
    tmp_path: Path, shape: tuple[int, ...], rows: int
) -> None:
    array = written(tmp_path, shape, rows)
    assert array_problem(array) == ""
    assert Path(str(array.object_path(2))).stat().st_size == object_bytes(array)


def test_array_problem_names_the_wrong_fields(tmp_path: Path) -> None:
    array = written(tmp_path, (4, 5), 32)
    path = tmp_path / "a.zarr" / "train" / "x" / "zarr.json"
    whole = path.read_bytes()
    for field, value, name in (
        ("data_type", "float32", "data type"),
        ("fill_value", 0, "fill value"),
        ("shape", [96, 4, 6], "row shape"),
        ("codecs", [{"name": "bytes"}], "checksums"),
    ):
        write_json(path, {**read_json(path), field: value})
        assert array_problem(array) == f"expected another {name}"
        path.write_bytes(whole)
    path.write_bytes(whole[:50])
    assert array_problem(array).startswith("cannot be read")
    assert object_bytes(array) is None
    path.unlink()
    assert "found no file" in array_problem(array)
    restore_description(array, 3)
    assert path.read_bytes() == whole
