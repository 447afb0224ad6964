"""Single rows of a sharded Zarr object in a local file, without zarr: an index look-up, one short
read, one checksum.

A training step asks for tens of dense rows in shuffled order, and a read through zarr costs about
1.6 ms before it has touched a number (`python benchmarks/chunking.py`). The layout is the one that
`pipeline.formats.zarr_array` writes and storage_layout.md tells: pieces of raw numbers, each followed by
its crc32c; at the end the index, an (offset, length) pair of uint64 a piece, and the index's crc32c.
Whatever does not fit raises `CorruptTarget`. Nothing is written and nothing kept in memory.
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
    """Rows of one object. A row is read and checked each time that it is asked for."""

    data: mmap.mmap
    index: NDArray[np.uint64]
    """(pieces, 2): where each piece's bytes begin, and how many there are."""
    row_shape: tuple[int, ...]
    """(P, D), or (K, P, D) with K pieces a row."""
    dtype: np.dtype[Any]
    where: str

    @classmethod
    def open(cls, file: Path, num_rows: int, row_shape: tuple[int, ...], dtype: str) -> ObjectRows:
        """The rows of an object. Raises `FileNotFoundError`, `CorruptTarget`."""
        num_pieces = num_rows * math.prod(row_shape[:-2])
        index_bytes = num_pieces * INDEX_ENTRY_BYTES
        with file.open("rb") as opened:
            if file.stat().st_size < index_bytes + CRC_BYTES:
                raise corrupt(str(file), "too few bytes for its index")
            data = mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ)
        index = _checked(data[-index_bytes - CRC_BYTES :], f"{file}: index")
        pairs = np.frombuffer(index, "<u8").reshape(num_pieces, 2)
        stored = np.dtype(dtype).newbyteorder("<")
        return cls(data, pairs.astype(np.uint64), row_shape, stored, str(file))

    def __getitem__(self, place: int | tuple[int, int]) -> NDArray[Any]:
        """Row `place`, or (row, view): entry `view` of a row. Raises `CorruptTarget`."""
        pieces_a_row = math.prod(self.row_shape[:-2])
        if isinstance(place, tuple):
            row, view = place
            return self._piece(row * pieces_a_row + view).reshape(self.row_shape[-2:])
        first = place * pieces_a_row
        pieces = [self._piece(first + n) for n in range(pieces_a_row)]
        whole = pieces[0] if pieces_a_row == 1 else np.concatenate(pieces)
        return whole.reshape(self.row_shape)

    def _piece(self, number: int) -> NDArray[Any]:
        offset, length = (int(entry) for entry in self.index[number])
        wanted = math.prod(self.row_shape[-2:]) * self.dtype.itemsize
        if length != wanted + CRC_BYTES:
            raise corrupt(self.where, f"piece {number} of {length} bytes")
        numbers = _checked(self.data[offset : offset + length], f"{self.where}: piece {number}")
        return np.frombuffer(numbers, self.dtype)


def _checked(data: bytes, where: str) -> bytes:
    """The bytes before the crc32c that ends them, if it is theirs."""
    body, checksum = data[:-CRC_BYTES], data[-CRC_BYTES:]
    if crc32c(body) != int.from_bytes(checksum, "little"):
        raise corrupt(where, "a checksum that does not match")
    return body


def corrupt(where: str, found: str) -> CorruptTarget:
    """The error for a damaged object."""
    return CorruptTarget(
        f"{where}: expected a whole Zarr object, found: {found}. Run `any2seg precompute CONFIG` to "
        "make it again."
    )
