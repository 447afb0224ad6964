"""Check and restore a Zarr array's metadata (`zarr.json`), read as plain JSON.

`array_problem` compares it with the store's provenance, `object_bytes` derives the length of an object from
it. `restore_description` rewrites it without touching any object; only this one imports zarr.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.formats.zarr_array import METADATA, RowArray
from pipeline.formats.zarr_rows import CRC_BYTES, INDEX_ENTRY_BYTES
from pipeline.storage.files import read_json, write_bytes

_PLAIN = ["bytes", "crc32c"]


def array_problem(array: RowArray) -> str:
    """What is wrong with the array's description; empty if it is right."""
    path = array.folder / array.name / METADATA
    try:
        metadata = read_json(path)
        described = {
            "row shape": list(metadata["shape"][1:]),
            "data type": metadata["data_type"],
            "rows of an object": metadata["chunk_grid"]["configuration"]["chunk_shape"][0],
            "fill value": metadata["fill_value"],
            "kind": [metadata["zarr_format"], metadata["node_type"]],
            "checksums": _object_bytes(metadata, array) is not None,
        }
    except FileNotFoundError:
        return "expected the array's description, found no file"
    except (ValueError, KeyError, TypeError, IndexError) as error:
        return f"cannot be read: {error!r}"
    expected = {
        "row shape": list(array.row_shape),
        "data type": array.dtype,
        "rows of an object": array.object_rows,
        "fill value": "NaN",
        "kind": [3, "array"],
        "checksums": True,
    }
    wrong = [name for name, value in expected.items() if described[name] != value]
    return f"expected another {', '.join(wrong)}" if wrong else ""


def object_bytes(array: RowArray) -> int | None:
    """Length of an object in bytes; None if the description does not determine it."""
    try:
        return _object_bytes(read_json(array.folder / array.name / METADATA), array)
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _object_bytes(description: Mapping[str, Any], array: RowArray) -> int | None:
    """Raw numbers and one checksum per chunk; a sharded object also has inner chunks and an index."""
    # Not `RowArray.object_bytes`: derived from the description on disk, as any Zarr reader will read the
    # object, so a description that contradicts its objects is seen.
    shape = [array.object_rows, *array.row_shape]
    item = np.dtype(array.dtype).itemsize
    codecs = description["codecs"]
    if [codec["name"] for codec in codecs] == _PLAIN:
        return math.prod(shape) * item + CRC_BYTES
    if [codec["name"] for codec in codecs] != ["sharding_indexed"]:
        return None
    sharding = codecs[0]["configuration"]
    if any([c["name"] for c in sharding[part]] != _PLAIN for part in ("codecs", "index_codecs")):
        return None
    inner: list[int] = sharding["chunk_shape"]
    num_inner = math.prod(whole // part for whole, part in zip(shape, inner, strict=True))
    chunk_bytes = math.prod(inner) * item + CRC_BYTES
    return num_inner * (chunk_bytes + INDEX_ENTRY_BYTES) + CRC_BYTES


def restore_description(array: RowArray, num_objects: int) -> None:
    """Rewrite the description of an array with `num_objects` objects; the objects stay unchanged."""
    with tempfile.TemporaryDirectory() as folder:
        scratch = replace(array, folder=Path(folder) / "scratch.zarr")
        scratch.write_object(num_objects - 1, np.empty((0, *array.row_shape), array.dtype))
        metadata = scratch.folder / scratch.name / METADATA
        write_bytes(array.folder / array.name / METADATA, metadata.read_bytes())
