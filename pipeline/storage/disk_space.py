"""Room on the workspace's disk: how long a target object is, what is free, and whether a run fits.

Writes nothing. `NotEnoughSpace` names what is needed, what is free and what to do. Of an object
store the room is not known and not asked for.
"""

from __future__ import annotations

import math
import os
from pathlib import Path

import numpy as np

from pipeline.core.units_text import as_size
from pipeline.errors import NotEnoughSpace
from pipeline.formats.zarr_rows import CRC_BYTES, INDEX_ENTRY_BYTES
from pipeline.storage.files import AnyPath
from pipeline.targets.store import PATCH, TargetProvenance

SPARE_SHARE = 0.05
"""Share of the bytes that must be free besides: records, metadata, the file being written."""
SPARE_BYTES = 1 << 20


def object_bytes(provenance: TargetProvenance) -> dict[str, int]:
    """Output to the exact length of one of its objects, which holds the rows of one shard."""
    return {
        output: _object_bytes(
            provenance.shard_size, shape, provenance.dtype_of(output), output == PATCH
        )
        for output, shape in provenance.outputs.items()
    }


def _object_bytes(num_rows: int, row_shape: tuple[int, ...], dtype: str, by_row: bool) -> int:
    data = num_rows * math.prod(row_shape) * np.dtype(dtype).itemsize
    if not by_row:
        return data + CRC_BYTES
    num_chunks = num_rows * math.prod(row_shape[:-2])
    return data + num_chunks * (CRC_BYTES + INDEX_ENTRY_BYTES) + CRC_BYTES


def free_bytes(path: AnyPath) -> int | None:
    """Bytes that may still be written where `path` is or will be; None: an object store."""
    if not isinstance(path, Path):
        return None
    there = next(folder for folder in (path, *path.parents) if folder.exists())
    found = os.statvfs(there)
    return found.f_bavail * found.f_frsize


def required_bytes(num_bytes: int) -> int:
    """What must be free for writing `num_bytes`, with a margin."""
    return num_bytes + round(num_bytes * SPARE_SHARE) + SPARE_BYTES if num_bytes else 0


def require_space(path: AnyPath, num_bytes: int, what: str) -> None:
    """Raise `NotEnoughSpace` unless `num_bytes` of `what` fit where `path` is or will be."""
    free, needed = free_bytes(path), required_bytes(num_bytes)
    if free is not None and free < needed:
        raise NotEnoughSpace(
            f"{path}: {what}: expected {as_size(needed)} free ({as_size(num_bytes)} and a margin), "
            f"found {as_size(free)}. Make room, or set `workspace` to another disk or an object "
            "store; `any2seg plan CONFIG` shows what needs how much."
        )
