"""Single rows of a sharded Zarr object in a local file, without zarr: an index look-up, one short
read, one checksum.

A training step reads tens of dense rows in shuffled order, and a read through zarr costs about 1.6 ms
before it touches a number (`python -m benchmarks.chunking`). The layout is the one that
`pipeline.formats.zarr_array` writes and storage_layout.md documents: chunks of raw numbers, each followed
by its crc32c; at the end the index, an (offset, length) pair of uint64 per chunk, and the index's
crc32c. Anything else raises `CorruptTarget`.
"""

from __future__ import annotations

import math
import mmap
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from google_crc32c import value as crc32c
from numpy.typing import NDArray

from pipeline.errors import CorruptTarget

CRC_BYTES = 4
INDEX_ENTRY_BYTES = 16


@dataclass(frozen=True, slots=True)
class ObjectRows:
    """Rows of one object. A row is read and its checksum verified at every access."""

    data: mmap.mmap
    index: NDArray[np.uint64]
    """(chunks, 2): offset and length of each chunk, in bytes."""
    row_shape: tuple[int, ...]
    """(P, D), or (K, P, D) with K chunks per row, one a view."""
    dtype: np.dtype[Any]
    where: str

    @classmethod
    def open(cls, file: Path, num_rows: int, row_shape: tuple[int, ...], dtype: str) -> ObjectRows:
        """The rows of an object. Raises `FileNotFoundError`, `CorruptTarget`."""
        num_chunks = num_rows * math.prod(row_shape[:-2])
        index_bytes = num_chunks * INDEX_ENTRY_BYTES
        with file.open("rb") as opened:
            if file.stat().st_size < index_bytes + CRC_BYTES:
                raise corrupt(str(file), "too few bytes for its index")
            # Mapped: an open object outlives its file, which the cache of local copies may delete,
            # and its pages are shared by all loader processes.
            data = mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ)
        index = _checked(data[-index_bytes - CRC_BYTES :], f"{file}: index")
        pairs = np.frombuffer(index, "<u8").reshape(num_chunks, 2)
        stored = np.dtype(dtype).newbyteorder("<")
        return cls(data, pairs.astype(np.uint64), row_shape, stored, str(file))

    def __getitem__(self, row: int | tuple[int, int]) -> NDArray[Any]:
        """A row, or with (row, view) one view of it. Raises `CorruptTarget`."""
        chunks_per_row = math.prod(self.row_shape[:-2])
        if isinstance(row, tuple):
            index, view = row
            return self._chunk(index * chunks_per_row + view).reshape(self.row_shape[-2:])
        first = row * chunks_per_row
        chunks = [self._chunk(first + n) for n in range(chunks_per_row)]
        whole = chunks[0] if chunks_per_row == 1 else np.concatenate(chunks)
        return whole.reshape(self.row_shape)

    def _chunk(self, number: int) -> NDArray[Any]:
        offset, length = (int(entry) for entry in self.index[number])
        expected = math.prod(self.row_shape[-2:]) * self.dtype.itemsize
        # Before the slice: a corrupted length could ask for the whole file.
        if length != expected + CRC_BYTES:
            raise corrupt(self.where, f"chunk {number} of {length} bytes")
        numbers = _checked(self.data[offset : offset + length], f"{self.where}: chunk {number}")
        return np.frombuffer(numbers, self.dtype)


def _checked(data: bytes, where: str) -> bytes:
    """`data` without the crc32c at its end. Raises `CorruptTarget` if that is not the data's."""
    body, checksum = data[:-CRC_BYTES], data[-CRC_BYTES:]
    if crc32c(body) != int.from_bytes(checksum, "little"):
        raise corrupt(where, "a checksum that does not match")
    return body


def corrupt(where: str, finding: str) -> CorruptTarget:
    """The error for a corrupted object."""
    return CorruptTarget(
        f"{where}: expected a whole Zarr object, found: {finding}. Run `any2seg precompute CONFIG` to "
        "compute it again."
    )
