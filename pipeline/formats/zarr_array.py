"""Zarr arrays as our stores use them: raw little-endian bytes with crc32c, NaN where nothing was
written.

One object holds `object_rows` rows; where single rows are read, it is cut into an inner chunk a
picture. An object is encoded by zarr in memory and then written whole, the same way to a disk and
to an object store; half an object is never visible. Metadata only ever grows: on disk under the
store's lock, in an object store by compare-and-swap. Reading a damaged object raises
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
from pipeline.storage.publish import Placed, place
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
    """Names of a row's dimensions in the metadata, for readers that want some."""
    by_row: bool = False
    """Whether each (P, D) grid of the rows is an inner chunk, so that it can be read alone. Measured:
    `python benchmarks/chunking.py`."""

    @property
    def inner_shape(self) -> tuple[int, ...]:
        """Shape of an inner chunk; empty if the object is one chunk."""
        grid = self.row_shape[-2:]
        return (1, *(1 for _ in self.row_shape[:-2]), *grid) if self.by_row else ()

    @property
    def object_bytes(self) -> int:
        """Length of every whole object: numbers, and the checksums and the index of its chunks."""
        numbers = self.object_rows * math.prod(self.row_shape) * np.dtype(self.dtype).itemsize
        if not self.by_row:
            return numbers + CRC_BYTES
        num_chunks = self.object_rows * math.prod(self.row_shape[:-2])
        return numbers + num_chunks * (CRC_BYTES + INDEX_ENTRY_BYTES) + CRC_BYTES

    def object_path(self, index: int) -> AnyPath:
        """The file that holds rows `index * object_rows` and on."""
        return self.folder.joinpath(self.name, "c", str(index), *("0" for _ in self.row_shape))

    def write_object(self, index: int, rows: NDArray[Any], made_from: str = "") -> Placed:
        """Write at most `object_rows` rows as object `index`, durably; the rest of it is NaN.

        The object is read back and compared. On disk, hold a lock against a second writer of the
        array; see `pipeline.storage.publish` for object stores, where the object of another writer that was
        also `made_from` this shard stays. Raises `CorruptTarget`.
        """
        self._grow(index + 1)
        return place(self.object_path(index), self.encode(rows), made_from)

    def read_object(self, index: int) -> NDArray[Any]:
        """(object_rows, *row_shape) rows of one object; NaN where there is none.

        Raises `CorruptTarget`.
        """
        path = self.object_path(index)
        try:
            data = path.read_bytes()
        except FileNotFoundError:
            return self._block(np.empty((0, *self.row_shape)))
        return self.decode(data, str(path))

    def encode(self, rows: NDArray[Any]) -> bytes:
        """The bytes of an object that holds these rows and then NaN."""
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
        """The rows of a `by_row` object in a local file, each read when it is asked for.

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
        """Let the metadata cover `num_objects` objects."""
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
        # Objects that are NaN throughout must exist too: a missing one is a hole.
        config={"write_empty_chunks": True},
    )


def _documents(array: RowArray, num_objects: int) -> Mapping[str, bytes]:
    """Zarr's metadata of the array and the groups around it: name to bytes."""
    documents: dict[str, Any] = {}
    _create(documents, array, num_objects)
    return {name: bytes(buffer.to_bytes()) for name, buffer in documents.items()}


def _write_new(path: AnyPath, data: bytes) -> None:
    """Write a document that never changes, if it is not there."""
    if not path.exists():
        write_bytes(path, data)


def _grow_metadata(path: AnyPath, wanted: bytes) -> None:
    """Replace an array's document by a longer one's, unless it is as long already."""
    while True:
        found, etag = _read(path)
        if found is not None and _num_rows(found, path) >= _num_rows(wanted, path):
            return
        if not isinstance(path, RemotePath):
            write_bytes(path, wanted)
        elif path.write_if(etag, wanted) is None:
            continue  # another writer was first: look again
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
