"""The manifest: which samples a dataset has and where their bytes lie, one Parquet row per sample.

Each shard has a record beside its tar, `<split>-000000.parquet`, written last: a tar without a
record does not count. `manifest.parquet` merges the records, `quarantine.parquet` lists the refused
samples with their reasons; both are replaced atomically. `Manifest` keeps the file in memory as it is
(compressed) and decodes the columns that are asked for, so a million rows take seconds and little
memory. Reading a dataset that was not prepared, or whose manifest is damaged, is a `DatasetError`.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from pipeline.core.fingerprint import fingerprint
from pipeline.errors import DatasetError, StorageUnavailable
from pipeline.formats.parquet import RowReader, read_rows, read_table, write_rows
from pipeline.formats.shard_tar import shard_name
from pipeline.modalities import ModalitySpec
from pipeline.schemas import DATASET_SCHEMA, READABLE_DATASETS
from pipeline.shards.manifest_tables import ShardId
from pipeline.shards.statistics import (
    FACTS_SCHEMA,
    STATISTICS,
    SplitStatistics,
    sum_lists,
    summarise,
)
from pipeline.storage.files import AnyPath, read_json

__all__ = ["read_rows", "read_table", "write_rows"]

MANIFEST = "manifest.parquet"
QUARANTINE = "quarantine.parquet"
DATASET = "dataset.json"
SHARDS = "shards"
SOURCE = "source_sha256"

_MEMBER = pa.struct([("name", pa.string()), ("offset", pa.int64()), ("num_bytes", pa.int64())])
MANIFEST_SCHEMA = pa.schema(
    [
        ("key", pa.string()),
        ("split", pa.string()),
        ("shard", pa.int32()),
        ("row", pa.int32()),
        ("shard_sha256", pa.string()),
        ("height", pa.int32()),
        ("width", pa.int32()),
        ("condition", pa.string()),
        ("corner_case", pa.string()),
        ("modalities", pa.list_(pa.string())),
        ("class_pixels", pa.list_(pa.int64())),
        ("ignored_pixels", pa.int64()),
        ("statistics", pa.list_(STATISTICS)),
        ("members", pa.list_(_MEMBER)),
        (SOURCE, pa.string()),
    ]
)
QUARANTINE_SCHEMA = pa.schema(
    [
        ("key", pa.string()),
        ("split", pa.string()),
        ("shard", pa.int32()),
        ("reason", pa.string()),
        ("version", pa.string()),
        ("shard_rows", pa.int32()),
    ]
)
_REPEATED = {"split", "shard_sha256", "condition", "corner_case"}
"""Columns with few distinct values: decoded as dictionary indices."""

Rows = list[dict[str, Any]]


@dataclass(frozen=True, slots=True)
class ShardSpan:
    """A shard and its rows of the manifest: from `start`, before `stop`."""

    split: str
    index: int
    sha256: str
    start: int
    stop: int


@dataclass(frozen=True, slots=True)
class ShardInfo:
    """One shard as the manifest describes it. Tuples run over its rows."""

    split: str
    index: int
    path: AnyPath
    sha256: str
    keys: tuple[str, ...]
    present: Mapping[str, tuple[bool, ...]]
    """For each modality of the dataset, whether each row has it."""
    conditions: tuple[str, ...]
    corner_cases: tuple[str, ...]

    @property
    def name(self) -> str:
        """`<split>-000000`."""
        return shard_name(self.split, self.index)

    @property
    def num_rows(self) -> int:
        """Samples in the shard."""
        return len(self.keys)


class Manifest:
    """A prepared dataset, read once and never changed."""

    def __init__(self, folder: AnyPath, data: bytes, description: Mapping[str, Any]) -> None:
        self.folder = folder
        self.description = description
        self._data = data

    @classmethod
    def load(cls, folder: AnyPath) -> Manifest:
        """Read `manifest.parquet` and `dataset.json`. `DatasetError` if either is missing."""
        try:
            manifest = cls(folder, (folder / MANIFEST).read_bytes(), read_json(folder / DATASET))
        except FileNotFoundError as error:
            missing = Path(str(error.filename)).name
            raise DatasetError(
                f"{folder}: expected a prepared dataset, found no {missing}. "
                "Run `any2seg prepare CONFIG`."
            ) from None
        except StorageUnavailable:
            raise
        except (OSError, json.JSONDecodeError) as error:
            raise _unreadable(folder / DATASET, error) from None
        manifest._require_readable()
        return manifest

    def _require_readable(self) -> None:
        schema = self.description.get("schema", 1)
        if schema not in READABLE_DATASETS:
            raise DatasetError(
                f"{self.folder / DATASET}: expected schema {DATASET_SCHEMA} or older, found {schema}: "
                "a newer any2seg made it. Install that version."
            )
        missing = set(MANIFEST_SCHEMA.names) - set(self.schema.names) - {SOURCE}
        if missing:
            raise _unreadable(self.folder / MANIFEST, f"no column {min(missing)}")

    @property
    def schema(self) -> pa.Schema:
        """The columns of the file; in schema 1 there is no `source_sha256`."""
        return self._open(()).schema_arrow

    def _open(self, names: Sequence[str]) -> pq.ParquetFile:
        try:
            return pq.ParquetFile(
                pa.BufferReader(self._data),
                read_dictionary=[name for name in names if name in _REPEATED],
                page_checksum_verification=True,
            )
        except (pa.ArrowException, OSError) as error:
            raise _unreadable(self.folder / MANIFEST, error) from None

    def table(self, split: str | None = None, columns: Sequence[str] | None = None) -> pa.Table:
        """Columns of `MANIFEST_SCHEMA` (default: all) of a split, or of everything, in shard and
        row order. Columns with few distinct values are dictionaries. `DatasetError` if damaged.
        """
        names = list(columns or MANIFEST_SCHEMA.names)
        file = self._open(names)
        stored = [name for name in names if name in file.schema_arrow.names]
        try:
            table = file.read(columns=stored, use_threads=False)
        except (pa.ArrowException, OSError) as error:
            raise _unreadable(self.folder / MANIFEST, error) from None
        for name in set(names) - set(stored):
            table = table.append_column(
                name, pa.nulls(len(table), MANIFEST_SCHEMA.field(name).type)
            )
        start, stop = self._span(split)
        return table.select(names).slice(start, stop - start).unify_dictionaries()

    def reader(self) -> RowReader:
        """Reads ranges of rows with all columns, for passes over a large manifest."""
        return RowReader(self._data)

    def _span(self, split: str | None) -> tuple[int, int]:
        """First row and end of a split; of everything if it is None."""
        if split is None:
            return 0, self.num_samples
        spans = [span for span in self.places if span.split == split]
        return (spans[0].start, spans[-1].stop) if spans else (0, 0)

    @cached_property
    def places(self) -> tuple[ShardSpan, ...]:
        """The shards of all splits with their row ranges, without their samples."""
        table = self.table(columns=("split", "shard", "shard_sha256"))
        if not len(table):
            return ()
        splits, shards = _codes(table["split"]), table["shard"].to_numpy()
        edges = np.flatnonzero((np.diff(splits) != 0) | (np.diff(shards) != 0)) + 1
        starts = [0, *edges.tolist()]
        firsts = table.take(starts).to_pydict()
        ends = [*edges.tolist(), len(table)]
        columns = (firsts["split"], firsts["shard"], firsts["shard_sha256"], starts, ends)
        return tuple(ShardSpan(*values) for values in zip(*columns, strict=True))

    @property
    def modalities(self) -> tuple[str, ...]:
        """Modalities of the dataset."""
        return tuple(self.description["modalities"])

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names; the index is the label id."""
        return tuple(self.description["classes"])

    @property
    def splits(self) -> tuple[str, ...]:
        """Splits that have samples."""
        return tuple(dict.fromkeys(span.split for span in self.places))

    @property
    def num_samples(self) -> int:
        """Samples of all splits."""
        return int(self._open(()).metadata.num_rows)

    def rows(self, split: str, columns: Sequence[str] | None = None) -> Rows:
        """Manifest rows of a split in shard and row order, as dicts: ask for few columns."""
        rows: Rows = self.table(split, columns).to_pylist()
        return rows

    def keys(self, split: str) -> frozenset[str]:
        """Keys of a split's samples."""
        return frozenset(strings(self.table(split, ("key",))["key"]))

    def shards(self, split: str) -> list[ShardInfo]:
        """Shards of a split in order. Raises `DatasetError` naming the splits if it is unknown."""
        self._require_split(split)
        return [shard for shard in self.all_shards if shard.split == split]

    def _require_split(self, split: str) -> None:
        if split not in self.splits:
            raise DatasetError(
                f"{self.folder}: no split {split!r}; expected one of {', '.join(self.splits)}"
            )

    @cached_property
    def all_shards(self) -> tuple[ShardInfo, ...]:
        """Shards of all splits."""
        names = ("key", "modalities", "condition", "corner_case")
        table = self.table(columns=names).combine_chunks()
        keys, conditions, corner_cases = (
            strings(table[name]) for name in names if name != names[1]
        )
        present = {name: holds(table["modalities"], name) for name in self.modalities}
        return tuple(
            ShardInfo(
                split=span.split,
                index=span.index,
                path=shard_path(self.folder, span.split, span.index),
                sha256=span.sha256,
                keys=tuple(keys[span.start : span.stop]),
                present={
                    name: tuple(has_modality[span.start : span.stop].tolist())
                    for name, has_modality in present.items()
                },
                conditions=tuple(conditions[span.start : span.stop]),
                corner_cases=tuple(corner_cases[span.start : span.stop]),
            )
            for span in self.places
        )

    def class_pixels(self, split: str) -> NDArray[np.int64]:
        """(K,) labelled pixels of each class in a split."""
        counts = self.table(split, ("class_pixels",))["class_pixels"]
        return np.array(sum_lists(counts, len(self.classes)), dtype=np.int64)

    @property
    def specs(self) -> dict[str, ModalitySpec]:
        """How each modality is stored and what its values mean, as prepared."""
        described = self.description["modalities"]
        return {name: ModalitySpec.from_json(fields) for name, fields in described.items()}

    def statistics(self, split: str) -> SplitStatistics:
        """Value statistics of the modalities, class pixels and co-availability of a split.

        Raises `DatasetError` naming the splits if it is unknown.
        """
        self._require_split(split)
        return summarise(self.table(split, FACTS_SCHEMA.names), self.specs, self.classes)

    def digest(self) -> str:
        """Hex sha256 over every shard's split, index and sha256: the content of the dataset."""
        return fingerprint(sorted([s.split, s.index, s.sha256] for s in self.places))


def _unreadable(path: AnyPath, reason: object) -> DatasetError:
    return DatasetError(
        f"{path}: cannot be read: {reason}. Delete it and run `any2seg prepare CONFIG` to rebuild "
        "it from the shard records."
    )


def strings(column: pa.ChunkedArray) -> list[str]:
    """A text column as a list; equal texts of a dictionary column share one object."""
    if not pa.types.is_dictionary(column.type):
        plain: list[str] = column.to_pylist()
        return plain
    column = column.combine_chunks()
    values = np.array(column.dictionary.to_pylist(), dtype=object)
    texts: list[str] = values[column.indices.to_numpy()].tolist()
    return texts


def _codes(column: pa.ChunkedArray) -> NDArray[np.int32]:
    """Indices of a dictionary column's values: equal if and only if the values are."""
    column = column.combine_chunks()
    codes: NDArray[np.int32] = column.indices.to_numpy()
    return codes


def holds(lists: pa.ChunkedArray, value: str) -> NDArray[np.bool_]:
    """(N,) whether each list of texts contains `value`."""
    lists = lists.combine_chunks()
    parents = pc.list_parent_indices(lists).to_numpy()
    contains = np.zeros(len(lists), dtype=np.bool_)
    contains[parents[pc.equal(pc.list_flatten(lists), value).to_numpy(zero_copy_only=False)]] = True
    return contains


def shard_path(folder: AnyPath, split: str, index: int) -> AnyPath:
    """Path of a shard's tar; its record and its refusals lie beside it with other suffixes."""
    return folder / SHARDS / split / f"{shard_name(split, index)}.tar"


def record_path(tar: AnyPath) -> AnyPath:
    """Path of the commit record of a shard."""
    return tar.with_suffix(".parquet")


def refusals_path(tar: AnyPath) -> AnyPath:
    """Path of the refused samples of the chunk of source samples that became this shard."""
    return tar.with_suffix(".refused.parquet")


def read_records(path: AnyPath) -> pa.Table:
    """The manifest or a shard's record with the columns of `MANIFEST_SCHEMA`; unknown sources are null.

    Raises what `read_table` raises, and `KeyError` naming any other column that is missing.
    """
    table = read_table(path)
    if SOURCE not in table.column_names:
        table = table.append_column(SOURCE, pa.nulls(len(table), pa.string()))
    return table.select(MANIFEST_SCHEMA.names)


def in_order(shards: Iterable[ShardId], splits: Sequence[str]) -> list[ShardId]:
    """Shards sorted by split (in the given order, others after them), then by index."""
    rank = {split: position for position, split in enumerate(splits)}
    return sorted(shards, key=lambda shard: (rank.get(shard[0], len(rank)), *shard))
