"""What a dataset folder has committed, and how a chunk of source samples is committed to it.

A chunk (at most `shard_size` source samples) becomes one shard. It is written in this order, each
step durable before the next: the tar, the refusals (if any), the record. The record commits all
three: a kill before it leaves nothing that counts, so the next run meets the same samples and
makes the same bytes. A chunk of which every sample was refused has no shard; its refusals stand
alone.
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
from pipeline.shards.sample_encoder import EncodedSample, Refused
from pipeline.storage.files import AnyPath, find_paths, fsync_path

RECORD_SUFFIX = ".parquet"
REFUSED_SUFFIX = ".refused.parquet"


class DatasetRecords:
    """The commit records of one dataset folder. One process may write at a time (see `locked`).

    The manifest's rows are those of the records, so only records that it lacks are read. That stays
    true because the manifest is removed before a record that it has is replaced or withdrawn.
    """

    def __init__(self, folder: AnyPath, *, use_manifest: bool = True) -> None:
        """Without `use_manifest` every record is read, and `merge` writes the manifest anew."""
        self._folder = folder
        self._keys: set[str] = set()
        self._refusals: dict[str, dict[str, Any]] = {}
        self._committed: set[tuple[str, int]] = set()
        self._refused: set[tuple[str, int]] = set()
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
        """The reason why the sample, as it lies there now, is in quarantine."""
        found = self._refusals.get(sample.key)
        if found is None or sample.key in self._keys or found["version"] != sample.version():
            return None
        return str(found["reason"])

    def is_known(self, sample: SourceSample) -> bool:
        """Whether the sample is in a shard, or was refused and has not changed since."""
        return sample.key in self._keys or self.refusal(sample) is not None

    def free_indices(self, split: str) -> Iterator[int]:
        """Shard indices of the split that no chunk has, ascending."""
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
        if refused:
            write_rows(refusals_path(path), refused, QUARANTINE_SCHEMA)
        else:
            refusals_path(path).unlink(missing_ok=True)
        if rows:
            write_rows(record_path(path), rows, MANIFEST_SCHEMA)
            self._committed.add((split, index))
            self._keys.update(row["key"] for row in rows)
        self._add_refusals(refused)

    def merge(self, splits: Sequence[str]) -> None:
        """Bring `quarantine.parquet` and then `manifest.parquet` up to date, if they are not."""
        self.merge_quarantine()
        places = in_order(self._committed, splits)
        if self._manifest is None or list(self._in_manifest) != places:
            write_tables(self._folder / MANIFEST, self._tables(places), MANIFEST_SCHEMA)
            self._take_manifest(_usable_manifest(self._folder))

    def merge_quarantine(self) -> AnyPath:
        """Bring `quarantine.parquet` up to date, if it is not; returns where it is."""
        rows = [row for row in self._refusals.values() if row["key"] not in self._keys]
        rows.sort(key=lambda row: (row["split"], row["shard"], row["key"]))
        path = self._folder / QUARANTINE
        try:
            current = read_rows(path) == rows
        except StorageUnavailable:
            raise
        except (pa.ArrowException, OSError):
            current = False  # not there, or damaged: it is only put together from the refusals
        if not current:
            write_rows(path, rows, QUARANTINE_SCHEMA)
        return path

    def _take_manifest(self, manifest: Manifest | None) -> None:
        self._manifest = manifest
        places = manifest.places if manifest else ()
        self._in_manifest = {(place.split, place.index): place for place in places}

    def _tables(self, wanted: Sequence[tuple[str, int]]) -> Iterator[pa.Table]:
        """The rows of the shards, from the manifest where it has them, else from their records."""
        reader = self._manifest.reader() if self._manifest else None
        for split, index in wanted:
            place = self._in_manifest.get((split, index))
            if reader is not None and place is not None:
                yield reader.read(place.start, place.stop)
            else:
                yield _read(record_path(shard_path(self._folder, split, index)))

    def _load_record(self, path: AnyPath, names: set[tuple[str, str]]) -> None:
        place = _place(path, RECORD_SUFFIX)
        if (place[0], f"{path.stem}.tar") in names:
            self._committed.add(place)
        else:
            # The tar was deleted, as the error about a damaged one advises: make it again.
            self._withdraw_from_manifest(place)
            path.unlink()
            names.discard((place[0], path.name))

    def _load_refusals(self, path: AnyPath, names: Container[tuple[str, str]]) -> None:
        rows = _read(path).to_pylist()
        record = path.name.removesuffix(REFUSED_SUFFIX) + RECORD_SUFFIX
        if (path.parent.name, record) in names or rows[0]["shard_rows"] == 0:
            self._add_refusals(rows)

    def _load_keys(self) -> None:
        """The keys of the committed shards: the manifest's, and those of records that it lacks."""
        if self._manifest is not None:
            keys = strings(self._manifest.table(columns=("key",))["key"])
            for place, rows in self._in_manifest.items():
                if place in self._committed:
                    self._keys.update(keys[rows.start : rows.stop])
        for split, index in self._committed - self._in_manifest.keys():
            record = record_path(shard_path(self._folder, split, index))
            self._keys.update(strings(_read(record, ("key",))["key"]))

    def _withdraw_from_manifest(self, place: tuple[str, int]) -> None:
        """Remove the manifest if it has the shard, before the shard's record changes."""
        if place in self._in_manifest:
            (self._folder / MANIFEST).unlink()
            fsync_path(self._folder)
            self._manifest, self._in_manifest = None, {}

    def _add_refusals(self, rows: Rows) -> None:
        self._refusals.update((row["key"], row) for row in rows)
        self._refused.update((row["split"], row["shard"]) for row in rows)


def _usable_manifest(folder: AnyPath) -> Manifest | None:
    """The manifest, if it can be read and has the columns of today."""
    try:
        manifest = Manifest.load(folder)
    except DatasetError:
        return None
    return manifest if manifest.schema.equals(MANIFEST_SCHEMA) else None


def _place(path: AnyPath, suffix: str) -> tuple[str, int]:
    """Split and index from the name of a file of a shard."""
    split = path.parent.name
    return split, int(path.name.removeprefix(f"{split}-").removesuffix(suffix))


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


def _read(path: AnyPath, columns: Sequence[str] | None = None) -> pa.Table:
    try:
        return read_table(path, columns)
    except StorageUnavailable:
        raise
    except (pa.ArrowException, OSError) as error:
        raise CorruptShard(
            f"{path}: expected a Parquet record, found: {error}. Delete the file and run "
            "`any2seg prepare CONFIG` to make it again."
        ) from None
