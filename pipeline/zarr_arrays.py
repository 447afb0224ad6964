"""Zarr arrays as our stores use them: raw little-endian bytes with crc32c, NaN where nothing was
written.

One object (file) holds `object_rows` rows; dense arrays cut it into inner chunks of `DENSE_ROWS`
rows. Objects are written whole and synced; half an object is never visible. Reading a damaged
object raises `CorruptTarget`. zarr itself is imported on first use.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import CorruptTarget
from pipeline.files import fsync_path, sha256_file

DENSE_ROWS = 16
"""Rows of an inner chunk of a dense array: larger ones make reading one row slow."""
WRITE_ALL: Any = {"write_empty_chunks": True}
"""Objects that are NaN throughout must exist too: a missing one is a hole."""


@dataclass(frozen=True, slots=True)
class RowArray:
    """One array of rows in a Zarr folder, e.g. `train/embedding` with rows of shape (D,)."""

    folder: Path
    """The `*.zarr` folder."""
    name: str
    row_shape: tuple[int, ...]
    dtype: str
    object_rows: int

    def object_path(self, index: int) -> Path:
        """The file that holds rows `index * object_rows` and on."""
        return self.folder.joinpath(self.name, "c", str(index), *("0" for _ in self.row_shape))

    def write_object(self, index: int, rows: NDArray[Any]) -> str:
        """Write at most `object_rows` rows as object `index`, durably; the rest of it is NaN.

        The object is read back and compared. Returns the hex sha256 of its bytes on disk. Not safe
        against a second writer of the same array: hold a lock. Raises `CorruptTarget`.
        """
        block = np.full((self.object_rows, *self.row_shape), np.nan, dtype=self.dtype)
        block[: len(rows)] = rows
        array = self._grown(index + 1)
        array[self._span(index)] = block
        _sync(self.object_path(index), self.folder / self.name)
        if self.read_object(index).tobytes() != block.tobytes():
            raise CorruptTarget(f"{self.object_path(index)}: read back other numbers than written")
        return sha256_file(self.object_path(index))

    def read_object(self, index: int) -> NDArray[Any]:
        """(object_rows, *row_shape) rows of one object. Raises `CorruptTarget`."""
        import zarr

        with self._reading(index):
            array = zarr.open_array(self.folder, path=self.name, mode="r")
            return np.asarray(array[self._span(index)])

    def open_rows(self, index: int) -> ObjectRows:
        """The rows of one object, each read when it is asked for. Raises `CorruptTarget`."""
        import zarr

        with self._reading(index):
            array = zarr.open_array(self.folder, path=self.name, mode="r")
        return ObjectRows(self, array, index)

    @contextmanager
    def _reading(self, index: int) -> Iterator[None]:
        try:
            yield
        except (ValueError, RuntimeError, OSError, KeyError, IndexError) as error:
            raise CorruptTarget(
                f"{self.object_path(index)}: expected a whole Zarr object, found: {error}. Run "
                "`any2seg precompute CONFIG` to make it again."
            ) from error

    def _span(self, index: int) -> slice:
        return slice(index * self.object_rows, (index + 1) * self.object_rows)

    def _grown(self, num_objects: int) -> Any:
        """The array, opened for writing, created or enlarged to hold `num_objects` objects."""
        import zarr

        if not (self.folder / self.name / "zarr.json").exists():
            self._create(num_objects)
        array = zarr.open_array(self.folder, path=self.name, mode="r+")
        rows = num_objects * self.object_rows
        if array.shape[0] < rows:
            array.resize((rows, *self.row_shape))
        return array.with_config(WRITE_ALL)  # `open_array` ignores a `config`

    def _create(self, num_objects: int) -> None:
        import zarr
        from zarr.codecs import BytesCodec, Crc32cCodec

        dense = len(self.row_shape) > 1 and self.object_rows % DENSE_ROWS == 0
        object_shape = (self.object_rows, *self.row_shape)
        zarr.create_array(
            self.folder,
            name=self.name,
            shape=(num_objects * self.object_rows, *self.row_shape),
            dtype=self.dtype,
            chunks=(DENSE_ROWS, *self.row_shape) if dense else object_shape,
            shards=object_shape if dense else None,
            serializer=BytesCodec(endian="little"),
            compressors=[Crc32cCodec()],
            fill_value=np.nan,
            config=WRITE_ALL,
            overwrite=True,
        )
        _sync(self.folder / self.name, self.folder.parent)


@dataclass(frozen=True, slots=True)
class ObjectRows:
    """Rows of one object in an open array. A row's inner chunk is read and its crc32c checked each
    time; nothing is kept."""

    source: RowArray
    array: Any
    """The open Zarr array."""
    index: int

    def __getitem__(self, place: int | tuple[int, int]) -> NDArray[Any]:
        """Row `place`, or (row, view): entry `view` of the row. Raises `CorruptTarget`."""
        row, *rest = place if isinstance(place, tuple) else (place,)
        with self.source._reading(self.index):
            return np.asarray(self.array[(self.index * self.source.object_rows + row, *rest)])


def _sync(path: Path, top: Path) -> None:
    """Sync `path` and the folders from there up to `top`, with their Zarr metadata."""
    while True:
        fsync_path(path)
        if (path / "zarr.json").exists():
            fsync_path(path / "zarr.json")
        if path == top:
            return
        path = path.parent


def object_exists(path: Path) -> bool:
    """Whether an object's file is there and not empty."""
    try:
        return os.stat(path).st_size > 0
    except FileNotFoundError:
        return False
