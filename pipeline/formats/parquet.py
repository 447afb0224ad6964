"""Parquet files of rows: the dataset's commit records and the manifest.

Pages carry checksums, which reading verifies. Reading and writing happen in the calling thread, and
a file is replaced atomically. Its bytes depend on the rows alone, not on how they were batched: row
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
    """A Parquet file, or some of its columns."""
    # In this thread: Arrow's pools would start threads that outlive the call, and a process that has
    # threads must not be forked.
    parquet = pq.ParquetFile(pa.BufferReader(path.read_bytes()), page_checksum_verification=True)
    return parquet.read(columns=columns and list(columns), use_threads=False)


def write_rows(path: AnyPath, rows: Sequence[Mapping[str, Any]], schema: pa.Schema) -> None:
    """Write rows as Parquet, durably and atomically."""
    write_tables(path, [pa.Table.from_pylist([dict(row) for row in rows], schema=schema)], schema)


def write_tables(path: AnyPath, tables: Iterable[pa.Table], schema: pa.Schema) -> None:
    """Write the rows of many tables as one Parquet file, durably and atomically.

    A column that is missing from a table is null in its rows.
    """

    def write(file: BinaryIO) -> None:
        with pq.ParquetWriter(file, schema, compression="zstd", write_page_checksum=True) as writer:
            for group in _groups(tables, schema):
                writer.write_table(group, row_group_size=ROW_GROUP_ROWS)

    write_atomic(path, write)


def _groups(tables: Iterable[pa.Table], schema: pa.Schema) -> Iterator[pa.Table]:
    """The rows in tables of `ROW_GROUP_ROWS`; the last may be shorter."""
    pending: list[pa.Table] = []
    num_pending = 0
    for table in tables:
        pending.append(with_schema(table, schema))
        num_pending += len(table)
        while num_pending >= ROW_GROUP_ROWS:
            rows = pa.concat_tables(pending)
            # Without `combine_chunks` the file would depend on how the rows were batched.
            yield rows.slice(0, ROW_GROUP_ROWS).combine_chunks()
            pending = [rows.slice(ROW_GROUP_ROWS)]
            num_pending -= ROW_GROUP_ROWS
    if num_pending:
        yield pa.concat_tables(pending).combine_chunks()


def with_schema(table: pa.Table, schema: pa.Schema) -> pa.Table:
    """The table's columns cast to a schema; missing ones are null."""
    columns = [
        table[field.name].cast(field.type)
        if field.name in table.column_names
        else pa.nulls(len(table), field.type)
        for field in schema
    ]
    return pa.Table.from_arrays(columns, schema=schema)


class RowReader:
    """Ranges of rows of a Parquet file in memory; fast if they are read in order.

    Keeps the last row group decoded.
    """

    def __init__(self, data: bytes) -> None:
        self._file = pq.ParquetFile(pa.BufferReader(data), page_checksum_verification=True)
        metadata = self._file.metadata
        self._sizes = [metadata.row_group(g).num_rows for g in range(metadata.num_row_groups)]
        self._group = -1
        self._rows = pa.table({})

    def read(self, start: int, stop: int) -> pa.Table:
        """Rows `start` to `stop`, exclusive."""
        slices, first = [], 0
        for group, size in enumerate(self._sizes):
            low, high = max(start, first), min(stop, first + size)
            if low < high:
                slices.append(self._read_group(group).slice(low - first, high - low))
            first += size
        return pa.concat_tables(slices)

    def _read_group(self, group: int) -> pa.Table:
        if group != self._group:
            self._rows = self._file.read_row_group(group, use_threads=False)
            self._group = group
        return self._rows
