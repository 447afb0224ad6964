"""The commit records of a dataset folder, and how a chunk of source samples is committed to it.

A chunk (at most `shard_size` source samples) becomes one shard. It is written in this order, each
step durable before the next: the tar, the refusals (if any), the record. The record commits all
three: after a kill before it none of them counts, so the next run forms the same chunk and writes
the same bytes. A chunk of which every sample was refused has no shard; its refusals count alone.
"""

from __future__ import annotations

from collections.abc import Container, Iterator, Sequence, Set
from dataclasses import asdict
from itertools import count
from pathlib import Path
from typing import Any

import pyarrow as pa

from pipeline.datasets.base import SourceSample
from pipeline.errors import CorruptShard, DatasetError, StorageUnavailable
from pipeline.formats.parquet import read_rows, read_table, write_rows, write_tables
from pipeline.formats.shard_tar import WrittenShard, write_shard
from pipeline.shards.adopt import adopt_tar
from pipeline.shards.manifest import (
    MANIFEST,
    MANIFEST_SCHEMA,
    QUARANTINE,
    QUARANTINE_SCHEMA,
    SHARDS,
    Manifest,
    Rows,
    in_order,
    record_path,
    refusals_path,
    shard_path,
    strings,
)
from pipeline.shards.manifest_tables import ShardId
from pipeline.shards.sample_encoder import EncodedSample, Refused
from pipeline.storage.files import AnyPath, find_paths, fsync_path

RECORD_SUFFIX = ".parquet"
REFUSED_SUFFIX = ".refused.parquet"


class DatasetRecords:
    """The commit records of one dataset folder. One process may write at a time (see `locked`).

    The manifest's rows are those of the records, so only records that it lacks are read. That stays
    true because the manifest is deleted before a record that it includes is replaced or deleted.
    """

    def __init__(self, folder: AnyPath, *, use_manifest: bool = True) -> None:
        """Without `use_manifest` every record is read, and `merge` rewrites the manifest."""
        self._folder = folder
        self._keys: set[str] = set()
        self._refusals: dict[str, dict[str, Any]] = {}
        self._committed: set[ShardId] = set()
        self._refused: set[ShardId] = set()
        self._take_manifest(_usable_manifest(folder) if use_manifest else None)
        files = find_paths(folder / SHARDS, "*/*")
        names = {(path.parent.name, path.name) for path in files}
        for path in files:
            if path.name.endswith(REFUSED_SUFFIX):
                self._load_refusals(path, names)
            elif path.suffix == RECORD_SUFFIX:
                self._load_record(path, names)
        self._load_keys()

    @property
    def num_shards(self) -> int:
        """Committed shards."""
        return len(self._committed)

    @property
    def keys(self) -> Set[str]:
        """Keys of all committed samples."""
        return self._keys

    def refusal(self, sample: SourceSample) -> str | None:
        """The reason why the sample, with its files as they are now, is in quarantine; else None."""
        row = self._refusals.get(sample.key)
        # A changed version (sizes and times) means that the files were edited: the sample is tried again.
        if row is None or sample.key in self._keys or row["version"] != sample.version():
            return None
        return str(row["reason"])

    def is_known(self, sample: SourceSample) -> bool:
        """Whether the sample is in a shard, or was refused and has not changed since."""
        return sample.key in self._keys or self.refusal(sample) is not None

    def free_indices(self, split: str) -> Iterator[int]:
        """Shard indices of the split that no chunk uses, ascending."""
        taken = self._committed | self._refused
        return (index for index in count() if (split, index) not in taken)

    def commit(self, split: str, index: int, results: Sequence[EncodedSample | Refused]) -> None:
        """Write one chunk as shard `index`: tar, refusals, then the record."""
        path = shard_path(self._folder, split, index)
        good = [result for result in results if isinstance(result, EncodedSample)]
        refused = [
            {**asdict(result), "split": split, "shard": index, "shard_rows": len(good)}
            for result in results
            if isinstance(result, Refused)
        ]
        self._withdraw_from_manifest((split, index))
        rows = _write_tar(path, split, index, good) if good else []
        # Refusals are committed with their chunk: if they counted before the record does, a run resumed
        # after a kill would skip these samples, form other chunks and write other bytes.
        if refused:
            write_rows(refusals_path(path), refused, QUARANTINE_SCHEMA)
        else:
            refusals_path(path).unlink(missing_ok=True)  # of a killed attempt at this chunk
        if rows:
            # Last: the record is what makes tar and refusals count.
            write_rows(record_path(path), rows, MANIFEST_SCHEMA)
            self._committed.add((split, index))
            self._keys.update(row["key"] for row in rows)
        self._add_refusals(refused)

    def merge(self, splits: Sequence[str]) -> None:
        """Bring `quarantine.parquet` and then `manifest.parquet` up to date, if they are not."""
        self.merge_quarantine()
        shards = in_order(self._committed, splits)
        if self._manifest is None or list(self._in_manifest) != shards:
            write_tables(self._folder / MANIFEST, self._tables(shards), MANIFEST_SCHEMA)
            self._take_manifest(_usable_manifest(self._folder))

    def merge_quarantine(self) -> AnyPath:
        """Bring `quarantine.parquet` up to date, if it is not; returns its path."""
        rows = [row for row in self._refusals.values() if row["key"] not in self._keys]
        rows.sort(key=lambda row: (row["split"], row["shard"], row["key"]))
        path = self._folder / QUARANTINE
        try:
            current = read_rows(path) == rows
        except StorageUnavailable:
            raise
        except (pa.ArrowException, OSError):
            # Missing or damaged: it only merges the refusals, so it can be rewritten.
            current = False
        if not current:
            write_rows(path, rows, QUARANTINE_SCHEMA)
        return path

    def _take_manifest(self, manifest: Manifest | None) -> None:
        self._manifest = manifest
        spans = manifest.places if manifest else ()
        self._in_manifest = {(span.split, span.index): span for span in spans}

    def _tables(self, shards: Sequence[ShardId]) -> Iterator[pa.Table]:
        """The rows of the shards, from the manifest where it has them, else from their records."""
        reader = self._manifest.reader() if self._manifest else None
        for split, index in shards:
            span = self._in_manifest.get((split, index))
            if reader is not None and span is not None:
                yield reader.read(span.start, span.stop)
            else:
                yield _read(record_path(shard_path(self._folder, split, index)))

    def _load_record(self, path: AnyPath, names: set[tuple[str, str]]) -> None:
        shard = _shard_id(path, RECORD_SUFFIX)
        if (shard[0], f"{path.stem}.tar") in names:
            self._committed.add(shard)
        else:
            # Somebody deleted the tar, as the error about a damaged one advises. Without its record its
            # samples are unknown again, and this run rebuilds the shard.
            self._withdraw_from_manifest(shard)
            path.unlink()
            names.discard((shard[0], path.name))

    def _load_refusals(self, path: AnyPath, names: Container[tuple[str, str]]) -> None:
        rows = _read(path).to_pylist()
        record = path.name.removesuffix(REFUSED_SUFFIX) + RECORD_SUFFIX
        # Without the record they are those of a killed attempt, unless the whole chunk was refused.
        if (path.parent.name, record) in names or rows[0]["shard_rows"] == 0:
            self._add_refusals(rows)

    def _load_keys(self) -> None:
        """The keys of the committed shards: the manifest's, and those of records that it lacks."""
        if self._manifest is not None:
            keys = strings(self._manifest.table(columns=("key",))["key"])
            for shard, span in self._in_manifest.items():
                if shard in self._committed:
                    self._keys.update(keys[span.start : span.stop])
        for split, index in self._committed - self._in_manifest.keys():
            record = record_path(shard_path(self._folder, split, index))
            self._keys.update(strings(_read(record, ("key",))["key"]))

    def _withdraw_from_manifest(self, shard: ShardId) -> None:
        """Delete the manifest if it has the shard, durably, before the shard's record changes."""
        if shard in self._in_manifest:
            (self._folder / MANIFEST).unlink()
            fsync_path(self._folder)
            self._manifest, self._in_manifest = None, {}

    def _add_refusals(self, rows: Rows) -> None:
        self._refusals.update((row["key"], row) for row in rows)
        self._refused.update((row["split"], row["shard"]) for row in rows)


def _usable_manifest(folder: AnyPath) -> Manifest | None:
    """The manifest, if it can be read and has the columns of the present schema."""
    try:
        manifest = Manifest.load(folder)
    except DatasetError:
        return None
    return manifest if manifest.schema.equals(MANIFEST_SCHEMA) else None


def _shard_id(path: AnyPath, suffix: str) -> ShardId:
    """Split and index from the name of one of a shard's files."""
    split = path.parent.name
    return split, int(path.name.removeprefix(f"{split}-").removesuffix(suffix))


def _write_tar(path: AnyPath, split: str, index: int, samples: Sequence[EncodedSample]) -> Rows:
    written = _adopted(path, samples) or write_shard(path, [(s.key, s.members) for s in samples])
    rows = []
    for row, (sample, spans) in enumerate(zip(samples, written.spans, strict=True)):
        members = [{"name": name, **asdict(span)} for name, span in spans.items()]
        position = {"split": split, "shard": index, "row": row, "shard_sha256": written.sha256}
        rows.append({**sample.facts, **position, "members": members})
    return [{name: row[name] for name in MANIFEST_SCHEMA.names} for row in rows]


def _adopted(path: AnyPath, samples: Sequence[EncodedSample]) -> WrittenShard | None:
    """The source shard itself as the shard, if it is all of these samples, unchanged."""
    shards = {sample.shard for sample in samples}
    if len(shards) != 1 or "" in shards:
        return None
    return adopt_tar(path, Path(shards.pop()), [sample.key for sample in samples])


def _read(path: AnyPath, columns: Sequence[str] | None = None) -> pa.Table:
    try:
        return read_table(path, columns)
    except StorageUnavailable:
        raise
    except (pa.ArrowException, OSError) as error:
        raise CorruptShard(
            f"{path}: expected a Parquet record, found: {error}. Delete the file and run "
            "`any2seg prepare CONFIG` to rebuild the shard."
        ) from None
