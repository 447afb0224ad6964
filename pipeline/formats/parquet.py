"""Parquet files of rows, as the dataset's records and the manifest are kept.

Pages carry checksums, which reading verifies. Reading and writing happen in the calling thread, and
a file is replaced atomically. What is written depends on the rows alone, however they arrive: row
groups are always `ROW_GROUP_ROWS` long. `OSError` and `pa.ArrowException` pass through.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.storage.files import AnyPath, write_atomic

ROW_GROUP_ROWS = 65_536
"""Rows that are in memory at once while a large file is rewritten."""


def read_rows(path: AnyPath) -> list[dict[str, Any]]:
    """All rows of a Parquet file as dicts."""
    rows: list[dict[str, Any]] = read_table(path).to_pylist()
    return rows


def read_table(path: AnyPath, columns: Sequence[str] | None = None) -> pa.Table:
    """A Parquet file, or some of its columns, read in this thread: Arrow's pools start none that
    outlive the call."""
    parquet = pq.ParquetFile(pa.BufferReader(path.read_bytes()), page_checksum_verification=True)
    return parquet.read(columns=columns and list(columns), use_threads=False)


def write_rows(path: AnyPath, rows: Sequence[Mapping[str, Any]], schema: pa.Schema) -> None:
    """Write rows as Parquet, durably and atomically."""
    write_tables(path, [pa.Table.from_pylist([dict(row) for row in rows], schema=schema)], schema)


def write_tables(path: AnyPath, tables: Iterable[pa.Table], schema: pa.Schema) -> None:
    """Write the rows of many tables as one Parquet file, durably and atomically.

    A column that a table lacks is null in its rows.
    """

    def write(file: BinaryIO) -> None:
        with pq.ParquetWriter(file, schema, compression="zstd", write_page_checksum=True) as writer:
            for group in _groups(tables, schema):
                writer.write_table(group, row_group_size=ROW_GROUP_ROWS)

    write_atomic(path, write)


def _groups(tables: Iterable[pa.Table], schema: pa.Schema) -> Iterator[pa.Table]:
    """The rows in tables of `ROW_GROUP_ROWS`, each in one piece; the last may be shorter."""
    held: list[pa.Table] = []
    num_held = 0
    for table in tables:
        held.append(with_schema(table, schema))
        num_held += len(table)
        while num_held >= ROW_GROUP_ROWS:
            rows = pa.concat_tables(held)
            yield rows.slice(0, ROW_GROUP_ROWS).combine_chunks()
            held = [rows.slice(ROW_GROUP_ROWS)]
            num_held -= ROW_GROUP_ROWS
    if num_held:
        yield pa.concat_tables(held).combine_chunks()


def with_schema(table: pa.Table, schema: pa.Schema) -> pa.Table:
    """The table's columns under a schema; those it lacks are null."""
    columns = [
        table[field.name].cast(field.type)
        if field.name in table.column_names
        else pa.nulls(len(table), field.type)
        for field in schema
    ]
    return pa.Table.from_arrays(columns, schema=schema)


class RowReader:
    """Ranges of rows of a large Parquet file in memory; quick if they are asked for in order."""

    def __init__(self, data: bytes) -> None:
        self._file = pq.ParquetFile(pa.BufferReader(data), page_checksum_verification=True)
        metadata = self._file.metadata
        self._sizes = [metadata.row_group(g).num_rows for g in range(metadata.num_row_groups)]
        self._group = -1
        self._rows = pa.table({})

    def read(self, start: int, stop: int) -> pa.Table:
        """Rows from `start`, before `stop`."""
        pieces, first = [], 0
        for group, size in enumerate(self._sizes):
            low, high = max(start, first), min(stop, first + size)
            if low < high:
                pieces.append(self._read_group(group).slice(low - first, high - low))
            first += size
        return pa.concat_tables(pieces)

    def _read_group(self, group: int) -> pa.Table:
        if group != self._group:
            self._rows = self._file.read_row_group(group, use_threads=False)
            self._group = group
        return self._rows
