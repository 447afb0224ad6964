"""The manifest: which samples a dataset has and where their bytes lie, one Parquet row a sample.

Each shard has a record beside its tar, `<split>-000000.parquet`, written last: a tar without a
record does not exist. `manifest.parquet` is the records put together, `quarantine.parquet` the
refused samples with their reasons; both are replaced atomically. Reading a dataset that was not
prepared is a `DatasetError`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from pipeline.errors import DatasetError, StorageUnavailable
from pipeline.files import AnyPath, read_json, write_atomic
from pipeline.fingerprint import fingerprint
from pipeline.modalities import ModalitySpec
from pipeline.shards import shard_name
from pipeline.statistics import SplitStatistics, summarise

MANIFEST = "manifest.parquet"
QUARANTINE = "quarantine.parquet"
DATASET = "dataset.json"
SHARDS = "shards"

_MEMBER = pa.struct([("name", pa.string()), ("offset", pa.int64()), ("num_bytes", pa.int64())])
_STATISTICS = pa.struct(
    [
        ("name", pa.string()),
        ("valid_pixels", pa.int64()),
        ("saturated_pixels", pa.int64()),
        ("lowest", pa.int32()),
        ("highest", pa.int32()),
        ("sums", pa.list_(pa.int64())),
        ("squares", pa.list_(pa.int64())),
    ]
)
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
        ("statistics", pa.list_(_STATISTICS)),
        ("members", pa.list_(_MEMBER)),
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

Rows = list[dict[str, Any]]


@dataclass(frozen=True, slots=True)
class ShardInfo:
    """One shard as the manifest names it. Tuples run over its rows."""

    split: str
    index: int
    path: AnyPath
    sha256: str
    keys: tuple[str, ...]
    present: Mapping[str, tuple[bool, ...]]
    """Modality of the dataset to whether each row has it."""
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
    """A prepared dataset, read once; nothing here changes it."""

    def __init__(self, folder: AnyPath, rows: Rows, description: Mapping[str, Any]) -> None:
        self.folder = folder
        self.description = description
        self._rows = rows

    @classmethod
    def load(cls, folder: AnyPath) -> Manifest:
        """Read `manifest.parquet` and `dataset.json`. `DatasetError` if they are not there."""
        try:
            rows = read_rows(folder / MANIFEST)
            return cls(folder, rows, read_json(folder / DATASET))
        except FileNotFoundError as error:
            missing = Path(str(error.filename)).name
            raise DatasetError(
                f"{folder}: expected a prepared dataset, found no {missing}. "
                "Run `any2seg prepare CONFIG`."
            ) from None
        except StorageUnavailable:
            raise
        except (pa.ArrowException, OSError, ValueError) as error:
            raise DatasetError(
                f"{folder}: {MANIFEST} or {DATASET} cannot be read: {error}. "
                "Run `any2seg prepare CONFIG` to put them together again."
            ) from None

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
        return tuple(dict.fromkeys(row["split"] for row in self._rows))

    @property
    def num_samples(self) -> int:
        """Samples of all splits."""
        return len(self._rows)

    def rows(self, split: str) -> Rows:
        """Manifest rows of a split in shard and row order, as dicts of the schema's columns."""
        return [row for row in self._rows if row["split"] == split]

    def shards(self, split: str) -> list[ShardInfo]:
        """Shards of a split in order. `DatasetError` naming the splits there are."""
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
        groups: dict[tuple[str, int], Rows] = {}
        for row in self._rows:
            groups.setdefault((row["split"], row["shard"]), []).append(row)
        return tuple(self._shard(*place, rows) for place, rows in groups.items())

    def _shard(self, split: str, index: int, rows: Rows) -> ShardInfo:
        return ShardInfo(
            split=split,
            index=index,
            path=shard_path(self.folder, split, index),
            sha256=rows[0]["shard_sha256"],
            keys=tuple(row["key"] for row in rows),
            present={m: tuple(m in row["modalities"] for row in rows) for m in self.modalities},
            conditions=tuple(row["condition"] for row in rows),
            corner_cases=tuple(row["corner_case"] for row in rows),
        )

    def class_pixels(self, split: str) -> NDArray[np.int64]:
        """(K,) labelled pixels of each class in a split."""
        counts = [row["class_pixels"] for row in self.rows(split)]
        table = np.array(counts, dtype=np.int64).reshape(-1, len(self.classes))
        total: NDArray[np.int64] = table.sum(axis=0)
        return total

    @property
    def specs(self) -> dict[str, ModalitySpec]:
        """How each modality is stored and what its values mean, as prepared."""
        described = self.description["modalities"]
        return {name: ModalitySpec.from_json(fields) for name, fields in described.items()}

    def statistics(self, split: str) -> SplitStatistics:
        """Value statistics of the modalities, class pixels and co-availability of a split.

        `DatasetError` naming the splits there are.
        """
        self._require_split(split)
        return summarise(self.rows(split), self.specs, self.classes)

    def digest(self) -> str:
        """Hex sha256 over every shard's split, index and sha256: the content of the dataset."""
        return fingerprint(sorted([s.split, s.index, s.sha256] for s in self.all_shards))


def shard_path(folder: AnyPath, split: str, index: int) -> AnyPath:
    """The shard's tar; its record and its refusals lie beside it under other endings."""
    return folder / SHARDS / split / f"{shard_name(split, index)}.tar"


def record_path(tar: AnyPath) -> AnyPath:
    """The commit record of a shard."""
    return tar.with_suffix(".parquet")


def refusals_path(tar: AnyPath) -> AnyPath:
    """The refused samples of the chunk of source samples that became this shard."""
    return tar.with_suffix(".refused.parquet")


def read_rows(path: AnyPath) -> Rows:
    """All rows of a Parquet file as dicts."""
    rows: Rows = read_table(path).to_pylist()
    return rows


def read_table(path: AnyPath) -> pa.Table:
    """A whole Parquet file, read in this thread: Arrow's pools start none that outlive the call."""
    with path.open("rb") as file:
        return pq.ParquetFile(file).read(use_threads=False)


def write_rows(path: AnyPath, rows: Sequence[Mapping[str, Any]], schema: pa.Schema) -> None:
    """Write rows as Parquet, durably and atomically."""
    table = pa.Table.from_pylist([dict(row) for row in rows], schema=schema)

    def write(file: BinaryIO) -> None:
        pq.write_table(table, file, compression="zstd")

    write_atomic(path, write)


def in_order(rows: Iterable[Mapping[str, Any]], splits: Sequence[str]) -> Rows:
    """Rows sorted by split (in the given order), shard and row."""
    rank = {split: position for position, split in enumerate(splits)}
    return sorted(
        (dict(row) for row in rows),
        key=lambda row: (rank.get(row["split"], len(rank)), row["split"], row["shard"], row["row"]),
    )
