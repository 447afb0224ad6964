"""Parquet tables: the same rows give the same bytes however they arrive; ranges; lacking columns."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.formats import parquet as tables
from pipeline.formats.parquet import RowReader, read_rows, read_table, with_schema, write_tables

SCHEMA = pa.schema([("n", pa.int64()), ("words", pa.list_(pa.string()))])


def rows(start: int, stop: int) -> pa.Table:
    numbers = range(start, stop)
    return pa.table([list(numbers), [[str(n)] * (n % 3) for n in numbers]], schema=SCHEMA)


@pytest.fixture(autouse=True)
def small_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables, "ROW_GROUP_ROWS", 8)


@given(st.lists(st.integers(0, 30), unique=True))
def test_bytes_depend_on_the_rows_alone(tmp_path_factory, edges: list[int]) -> None:
    folder: Path = tmp_path_factory.mktemp("tables")
    edges = [0, *sorted(edges), 30]
    pieces = [rows(a, b) for a, b in zip(edges[:-1], edges[1:], strict=True)]
    write_tables(folder / "pieces", pieces, SCHEMA)
    write_tables(folder / "whole", [rows(0, 30)], SCHEMA)
    assert (folder / "pieces").read_bytes() == (folder / "whole").read_bytes()
    assert read_table(folder / "pieces").equals(rows(0, 30))


@given(st.lists(st.tuples(st.integers(0, 29), st.integers(0, 29)), max_size=5))
def test_row_reader_reads_ranges_in_any_order(
    tmp_path_factory, spans: list[tuple[int, int]]
) -> None:
    path: Path = tmp_path_factory.mktemp("tables") / "t.parquet"
    write_tables(path, [rows(0, 30)], SCHEMA)
    assert pq.ParquetFile(path).num_row_groups == 4
    reader = RowReader(path.read_bytes())
    for first, second in spans:
        start, stop = min(first, second), max(first, second) + 1
        assert reader.read(start, stop).equals(rows(start, stop))


def test_a_missing_column_is_null(tmp_path: Path) -> None:
    old = rows(0, 3).select(["n"])
    assert with_schema(old, SCHEMA)["words"].to_pylist() == [None] * 3
    write_tables(tmp_path / "t", [old, rows(3, 5)], SCHEMA)
    assert read_rows(tmp_path / "t")[2:4] == [{"n": 2, "words": None}, {"n": 3, "words": []}]
    assert read_table(tmp_path / "t", ("words",)).column_names == ["words"]


def test_an_empty_table_round_trips(tmp_path: Path) -> None:
    write_tables(tmp_path / "t", [], SCHEMA)
    assert read_table(tmp_path / "t").equals(SCHEMA.empty_table())
