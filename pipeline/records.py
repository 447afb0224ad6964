"""What a dataset folder has committed, and how a chunk of source samples is committed to it.

A chunk (at most `shard_size` source samples) becomes one shard. It is written in this order, each
step durable before the next: the tar, the refusals (if any), the record. The record commits all
three: a kill before it leaves nothing that counts, so the next run meets the same samples and
makes the same bytes. A chunk of which every sample was refused has no shard; its refusals stand
alone.
"""

from __future__ import annotations

from collections.abc import Iterator, KeysView, Sequence
from dataclasses import asdict
from itertools import count
from pathlib import Path
from typing import Any

import pyarrow as pa

from pipeline.adopt import adopt_tar
from pipeline.datasets.base import SourceSample
from pipeline.encoding import EncodedSample, Refused
from pipeline.errors import CorruptShard
from pipeline.files import AnyPath, find_paths
from pipeline.manifest import (
    MANIFEST,
    MANIFEST_SCHEMA,
    QUARANTINE,
    QUARANTINE_SCHEMA,
    SHARDS,
    Rows,
    in_order,
    read_rows,
    record_path,
    refusals_path,
    shard_path,
    write_rows,
)
from pipeline.shards import WrittenShard, write_shard

RECORD_SUFFIX = ".parquet"
REFUSED_SUFFIX = ".refused.parquet"


class DatasetRecords:
    """The commit records of one dataset folder. One process may write at a time (see `locked`)."""

    def __init__(self, folder: AnyPath) -> None:
        self._folder = folder
        self._rows: dict[str, dict[str, Any]] = {}
        self._refusals: dict[str, dict[str, Any]] = {}
        self._taken: set[tuple[str, int]] = set()
        for path in find_paths(folder / SHARDS, f"*/*{RECORD_SUFFIX}"):
            if not path.name.endswith(REFUSED_SUFFIX):
                self._load_record(path)
        for path in find_paths(folder / SHARDS, f"*/*{REFUSED_SUFFIX}"):
            self._load_refusals(path)

    @property
    def num_shards(self) -> int:
        """Committed shards."""
        return len({(row["split"], row["shard"]) for row in self._rows.values()})

    @property
    def keys(self) -> KeysView[str]:
        """Keys of all committed samples."""
        return self._rows.keys()

    def refusal(self, sample: SourceSample) -> str | None:
        """The reason why the sample, as it lies there now, is in quarantine."""
        found = self._refusals.get(sample.key)
        if found is None or sample.key in self._rows or found["version"] != sample.version():
            return None
        return str(found["reason"])

    def is_known(self, sample: SourceSample) -> bool:
        """Whether the sample is in a shard, or was refused and has not changed since."""
        return sample.key in self._rows or self.refusal(sample) is not None

    def free_indices(self, split: str) -> Iterator[int]:
        """Shard indices of the split that no chunk has, ascending."""
        return (index for index in count() if (split, index) not in self._taken)

    def commit(self, split: str, index: int, results: Sequence[EncodedSample | Refused]) -> None:
        """Write one chunk as shard `index`: tar, refusals, then the record."""
        path = shard_path(self._folder, split, index)
        good = [result for result in results if isinstance(result, EncodedSample)]
        refused = [
            {**asdict(result), "split": split, "shard": index, "shard_rows": len(good)}
            for result in results
            if isinstance(result, Refused)
        ]
        rows = _write_tar(path, split, index, good) if good else []
        if refused:
            write_rows(refusals_path(path), refused, QUARANTINE_SCHEMA)
        else:
            refusals_path(path).unlink(missing_ok=True)
        if rows:
            write_rows(record_path(path), rows, MANIFEST_SCHEMA)
        self._add(rows, refused)

    def merge(self, splits: Sequence[str]) -> None:
        """Bring `quarantine.parquet` and then `manifest.parquet` up to date, if they are not."""
        self.merge_quarantine()
        self._replace(MANIFEST, in_order(self._rows.values(), splits), MANIFEST_SCHEMA)

    def merge_quarantine(self) -> None:
        """Bring `quarantine.parquet` up to date, if it is not."""
        rows = [row for row in self._refusals.values() if row["key"] not in self._rows]
        rows.sort(key=lambda row: (row["split"], row["shard"], row["key"]))
        self._replace(QUARANTINE, rows, QUARANTINE_SCHEMA)

    def _replace(self, name: str, rows: Rows, schema: pa.Schema) -> None:
        path = self._folder / name
        try:
            if read_rows(path) == rows:
                return
        except (pa.ArrowException, OSError):
            pass  # not there, or damaged: it is only put together from the records
        write_rows(path, rows, schema)

    def _load_record(self, path: AnyPath) -> None:
        tar = path.with_suffix(".tar")
        if tar.exists():
            self._add(_read(path), [])
        else:
            # The tar was deleted, as the error about a damaged one advises: make it again.
            path.unlink()

    def _load_refusals(self, path: AnyPath) -> None:
        rows = _read(path)
        record = path.with_name(path.name.removesuffix(REFUSED_SUFFIX) + RECORD_SUFFIX)
        if record.exists() or rows[0]["shard_rows"] == 0:
            self._add([], rows)

    def _add(self, rows: Rows, refusals: Rows) -> None:
        self._rows.update((row["key"], row) for row in rows)
        self._refusals.update((row["key"], row) for row in refusals)
        self._taken.update((row["split"], row["shard"]) for row in (*rows, *refusals))


def _write_tar(path: AnyPath, split: str, index: int, samples: Sequence[EncodedSample]) -> Rows:
    written = _adopted(path, samples) or write_shard(path, [(s.key, s.members) for s in samples])
    rows = []
    for row, (sample, spans) in enumerate(zip(samples, written.spans, strict=True)):
        members = [{"name": name, **asdict(span)} for name, span in spans.items()]
        place = {"split": split, "shard": index, "row": row, "shard_sha256": written.sha256}
        rows.append({**sample.facts, **place, "members": members})
    return [{name: row[name] for name in MANIFEST_SCHEMA.names} for row in rows]


def _adopted(path: AnyPath, samples: Sequence[EncodedSample]) -> WrittenShard | None:
    """The source shard itself as the shard, if it is all of these samples, unchanged."""
    shards = {sample.shard for sample in samples}
    if len(shards) != 1 or "" in shards:
        return None
    return adopt_tar(path, Path(shards.pop()), [sample.key for sample in samples])


def _read(path: AnyPath) -> Rows:
    try:
        return read_rows(path)
    except (pa.ArrowException, OSError) as error:
        raise CorruptShard(
            f"{path}: expected a Parquet record, found: {error}. Delete the file and run "
            "`any2seg prepare CONFIG` to make it again."
        ) from None
