"""Zarr arrays of the target stores: raw little-endian bytes with crc32c, NaN for missing rows.

One object holds `object_rows` rows; where single rows are read, it is a Zarr shard with one inner chunk
per (P, D) grid. zarr encodes an object in memory, and it is then written whole, on disk and in an
object store alike; a partial object is never visible. Metadata only ever grows: on disk under the
store's lock, in an object store by compare-and-swap. Reading a corrupted object raises
`CorruptTarget`. zarr itself is imported on first use.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import CorruptTarget
from pipeline.formats.zarr_rows import CRC_BYTES, INDEX_ENTRY_BYTES, ObjectRows, corrupt
from pipeline.storage.files import AnyPath, write_bytes
from pipeline.storage.publish import Published, publish_once
from pipeline.storage.remote_path import RemotePath

METADATA = "zarr.json"


@dataclass(frozen=True, slots=True)
class RowArray:
    """One array of rows in a Zarr folder, e.g. `train/embedding` with rows of shape (D,)."""

    folder: AnyPath
    """The `*.zarr` folder."""
    name: str
    row_shape: tuple[int, ...]
    dtype: str
    object_rows: int
    dims: tuple[str, ...] = ()
    """Names of a row's dimensions in the metadata, for readers that use them."""
    by_row: bool = False
    """Whether each (P, D) grid of a row is an inner chunk, so that it can be read alone. Measured:
    `python -m benchmarks.chunking`."""

    @property
    def inner_shape(self) -> tuple[int, ...]:
        """Shape of an inner chunk; empty if the object is one chunk."""
        grid = self.row_shape[-2:]
        return (1, *(1 for _ in self.row_shape[:-2]), *grid) if self.by_row else ()

    @property
    def object_bytes(self) -> int:
        """Length of every object: the numbers, the checksums and the index of the inner chunks."""
        numbers = self.object_rows * math.prod(self.row_shape) * np.dtype(self.dtype).itemsize
        if not self.by_row:
            return numbers + CRC_BYTES
        num_chunks = self.object_rows * math.prod(self.row_shape[:-2])
        return numbers + num_chunks * (CRC_BYTES + INDEX_ENTRY_BYTES) + CRC_BYTES

    def object_path(self, index: int) -> AnyPath:
        """The file that holds `object_rows` rows from row `index * object_rows`."""
        return self.folder.joinpath(self.name, "c", str(index), *("0" for _ in self.row_shape))

    def write_object(self, index: int, rows: NDArray[Any], made_from: str = "") -> Published:
        """Write at most `object_rows` rows as object `index`, durably; its other rows are NaN.

        The object is read back and compared. On disk, the caller holds the store's lock; in an object
        store, an object that another writer `made_from` the same shard stays (see
        `pipeline.storage.publish`). Raises `CorruptTarget`.
        """
        # Metadata first: an object beyond the array's shape would be invisible to zarr's readers,
        # while a shape beyond the objects reads as NaN.
        self._grow(index + 1)
        return publish_once(self.object_path(index), self.encode(rows), made_from)

    def read_object(self, index: int) -> NDArray[Any]:
        """(object_rows, *row_shape) rows of one object; all NaN if it does not exist.

        Raises `CorruptTarget`.
        """
        path = self.object_path(index)
        try:
            data = path.read_bytes()
        except FileNotFoundError:
            return self._block(np.empty((0, *self.row_shape)))
        return self.decode(data, str(path))

    def encode(self, rows: NDArray[Any]) -> bytes:
        """The bytes of an object that holds these rows, then NaN."""
        chunks: dict[str, Any] = {}
        _create(chunks, self, 1)[:] = self._block(rows)
        return bytes(chunks[self._chunk()].to_bytes())

    def decode(self, data: bytes, where: str) -> NDArray[Any]:
        """(object_rows, *row_shape) rows of an object's bytes, checksums verified.

        `where` is the object's name in `CorruptTarget`.
        """
        from zarr.core.buffer.cpu import Buffer

        chunks: dict[str, Any] = {}
        array = _create(chunks, self, 1)
        chunks[self._chunk()] = Buffer.from_bytes(data)
        try:
            return np.asarray(array[:])
        except (ValueError, RuntimeError, KeyError, IndexError) as error:
            raise corrupt(where, str(error)) from error

    def open_rows(self, file: Path) -> ObjectRows:
        """The rows of a `by_row` object in a local file, each read on access.

        Raises `FileNotFoundError`, `CorruptTarget`.
        """
        return ObjectRows.open(file, self.object_rows, self.row_shape, self.dtype)

    def _block(self, rows: Any) -> NDArray[Any]:
        block = np.full((self.object_rows, *self.row_shape), np.nan, dtype=self.dtype)
        block[: len(rows)] = rows
        return block

    def _chunk(self) -> str:
        return "/".join([self.name, "c", "0", *("0" for _ in self.row_shape)])

    def _grow(self, num_objects: int) -> None:
        """Extend the metadata to at least `num_objects` objects."""
        documents = _documents(self, num_objects)
        array = f"{self.name}/{METADATA}"
        for name, data in documents.items():
            if name != array:
                _write_new(self.folder / name, data)
        _grow_metadata(self.folder / array, documents[array])


def _create(chunks: dict[str, Any], array: RowArray, num_objects: int) -> Any:
    """A new Zarr array over the dict `chunks`: name to bytes."""
    import zarr
    from zarr.codecs import BytesCodec, Crc32cCodec
    from zarr.storage import MemoryStore

    object_shape = (array.object_rows, *array.row_shape)
    return zarr.create_array(
        MemoryStore(chunks),
        name=array.name,
        shape=(num_objects * array.object_rows, *array.row_shape),
        dtype=array.dtype,
        chunks=array.inner_shape or object_shape,
        shards=object_shape if array.by_row else None,
        dimension_names=("row", *array.dims) if array.dims else None,
        serializer=BytesCodec(endian="little"),
        compressors=[Crc32cCodec()],
        fill_value=np.nan,
        # An object of NaN alone must exist too: a missing one means that nothing was computed.
        config={"write_empty_chunks": True},
    )


def _documents(array: RowArray, num_objects: int) -> Mapping[str, bytes]:
    """Zarr's metadata of the array and the groups around it: name to bytes."""
    documents: dict[str, Any] = {}
    _create(documents, array, num_objects)
    return {name: bytes(buffer.to_bytes()) for name, buffer in documents.items()}


def _write_new(path: AnyPath, data: bytes) -> None:
    """Write a document that never changes, unless it exists."""
    if not path.exists():
        write_bytes(path, data)


def _grow_metadata(path: AnyPath, longer: bytes) -> None:
    """Replace an array's document by one with more rows, unless it has as many already."""
    while True:
        current, etag = _read(path)
        # Never shrinks: writers of earlier objects come later, and would hide those of later ones.
        if current is not None and _num_rows(current, path) >= _num_rows(longer, path):
            return
        if not isinstance(path, RemotePath):
            write_bytes(path, longer)
        elif path.write_if(etag, longer) is None:
            continue  # another writer was first: compare with its document
        return


def _read(path: AnyPath) -> tuple[bytes | None, str | None]:
    """An array's document, and in an object store its version; (None, None) if there is none."""
    try:
        if not isinstance(path, RemotePath):
            return path.read_bytes(), None
        tagged = path.read_tagged()
    except FileNotFoundError:
        return None, None
    return tagged.data, tagged.etag


def _num_rows(document: bytes, path: AnyPath) -> int:
    try:
        return int(json.loads(document)["shape"][0])
    except (ValueError, KeyError, TypeError, IndexError):
        raise CorruptTarget(
            f"{path}: expected the metadata of a Zarr array. Delete it and run "
            "`any2seg precompute CONFIG` to write it again."
        ) from None
