"""Repair of a prepared dataset: rebuild corrupt shards and records from the source.

A shard is rebuilt in a temporary folder first and compared with the digest in the dataset's records. Only
identical bytes replace the corrupt ones: if the source has changed, the shard stays unchanged and the finding
is left with its reason, since targets and students made from the shard would silently belong to other data.
Needs the dataset's lock.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import pyarrow as pa

from flows.integrity.finding import PREPARE, Finding, Kind
from pipeline.config.config import Config
from pipeline.core.fingerprint import SHORT
from pipeline.core.parallel_map import map_in_order
from pipeline.datasets import open_dataset
from pipeline.datasets.base import DatasetAdapter, SourceSample
from pipeline.errors import Any2SegError, DatasetError
from pipeline.formats.shard_tar import shard_name
from pipeline.formats.tar_index import list_tar
from pipeline.shards.commit import RECORD_SUFFIX, REFUSED_SUFFIX, DatasetRecords
from pipeline.shards.manifest import (
    MANIFEST,
    MANIFEST_SCHEMA,
    QUARANTINE,
    QUARANTINE_SCHEMA,
    SHARDS,
    read_records,
    read_rows,
    record_path,
    refusals_path,
    shard_path,
    write_rows,
)
from pipeline.shards.manifest_tables import ShardId, shard_sha256, split_by_shard
from pipeline.shards.prepare import write_description
from pipeline.shards.sample_encoder import EncodedSample, Refused, SampleEncoder
from pipeline.storage.files import AnyPath, find_paths, sha256_file, write_atomic
from pipeline.storage.local_copies import local_copy

_RECORD = {Kind.SHARD_RECORD_MISSING, Kind.SHARD_RECORD_UNREADABLE}
_REBUILD = {
    Kind.SHARD_MISSING,
    Kind.SHARD_TRUNCATED,
    Kind.SHARD_ALTERED,
    Kind.SHARD_MEMBERS,
    Kind.MANIFEST_DIFFERS,
}


class DatasetRepair:
    """Repairs one dataset folder, finding by finding. The caller holds the folder's lock."""

    def __init__(self, config: Config, folder: AnyPath) -> None:
        self._config, self._folder = config, folder
        self._manifest = _tables(folder / MANIFEST)
        self._source = _Source(config)

    def repair(self, finding: Finding) -> None:
        """Fix one finding. Raises `Any2SegError` with the reason if it must be left."""
        for path in finding.drop:
            path.unlink(missing_ok=True)
        if finding.kind == Kind.DESCRIPTION:
            write_description(self._config, self._source.adapter, self._folder)
        elif finding.kind == Kind.REFUSALS_UNREADABLE:
            self._restore_refusals(_shard_id(finding.shard))
        elif finding.kind in _RECORD:
            self._restore_record(_shard_id(finding.shard))
        elif finding.kind in _REBUILD and finding.shard:
            self._rebuild(_shard_id(finding.shard))

    def merge(self) -> None:
        """Rebuild manifest and quarantine from the records.

        Raises `DatasetError` if a committed shard has no tar: merging would drop it.
        """
        for record in find_paths(self._folder / SHARDS, f"*/*{RECORD_SUFFIX}"):
            tar = record.with_suffix(".tar")
            if not record.name.endswith(REFUSED_SUFFIX) and not tar.exists():
                raise DatasetError(f"{tar}: does not exist, so {MANIFEST} is left as it is")
        splits = self._source.splits() or tuple(dict.fromkeys(split for split, _ in self._manifest))
        DatasetRecords(self._folder, use_manifest=False).merge(splits)

    def _restore_refusals(self, shard: ShardId) -> None:
        """From the quarantine, which has the same rows; without them the samples are tried again."""
        try:
            rows = read_rows(self._folder / QUARANTINE)
        except (pa.ArrowException, OSError):
            raise DatasetError(
                f"{self._folder / QUARANTINE}: cannot be read either. Run `{PREPARE}`: it tries the "
                "refused samples of the shard again"
            ) from None
        own = [row for row in rows if (row["split"], row["shard"]) == shard]
        if own:
            path = refusals_path(shard_path(self._folder, *shard))
            write_rows(path, own, QUARANTINE_SCHEMA)

    def _restore_record(self, shard: ShardId) -> None:
        """From the manifest, which has the same rows, or from the source."""
        if shard not in self._manifest:
            self._rebuild(shard)
            return
        path = record_path(shard_path(self._folder, *shard))
        write_rows(path, self._manifest[shard].to_pylist(), MANIFEST_SCHEMA)

    def _rebuild(self, shard: ShardId) -> None:
        """Rebuild tar and record; they are accepted only if the tar has the recorded digest."""
        tar = shard_path(self._folder, *shard)
        keys, recorded = self._expected(shard, tar)
        with self._source.rebuilt(shard, keys) as scratch:
            digest = sha256_file(scratch)
            if digest not in recorded:
                raise DatasetError(
                    f"{tar}: the source gives other bytes now (sha256 {digest[:SHORT]}, on record "
                    f"{', '.join(sorted(value[:SHORT] for value in recorded))}), so it was changed "
                    "since. Put the source back as it was, or prepare it under another root"
                )
            if not tar.exists() or sha256_file(tar) != digest:
                _copy(scratch, tar)
            # Last, as in `prepare`: the record makes the tar count.
            if not self._is_settled(shard, tar):
                _copy(record_path(scratch), record_path(tar))

    def _is_settled(self, shard: ShardId, tar: AnyPath) -> bool:
        """Whether the record can be read and does not contradict the manifest."""
        record = _tables(record_path(tar)).get(shard)
        return record is not None and record.equals(self._manifest.get(shard, record))

    def _expected(self, shard: ShardId, tar: AnyPath) -> tuple[list[str], set[str]]:
        """The shard's keys, and the digests that the record and the manifest name.

        If neither can be read, those of the tar itself.
        """
        record = _tables(record_path(tar)).get(shard)
        # If the two contradict each other, the digest of the rebuilt tar decides which one is right.
        tables = [t for t in (record, self._manifest.get(shard)) if t is not None]
        if tables:
            return tables[0]["key"].to_pylist(), {shard_sha256(table) for table in tables}
        digest = sha256_file(tar)
        keys = [sample.key for sample in list_tar(local_copy(tar, digest))]
        self._require_unlisted(tar, keys)
        return keys, {digest}

    def _require_unlisted(self, tar: AnyPath, keys: Sequence[str]) -> None:
        """Raise `DatasetError` if the manifest has one of the keys: the tar is a copy of a shard."""
        for (split, index), table in self._manifest.items():
            shared = set(keys) & set(table["key"].to_pylist())
            if shared:
                raise DatasetError(
                    f"{tar}: holds sample {min(shared)} of shard {shard_name(split, index)}, so it is a "
                    f"copy. Delete it and {record_path(tar)}"
                )


class _Source:
    """The source of a dataset, opened and listed on first use."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._adapter: DatasetAdapter | None = None
        self._listed: dict[str, dict[str, SourceSample]] = {}

    @property
    def adapter(self) -> DatasetAdapter:
        """The adapter. Raises `DatasetError` if the source does not exist."""
        if self._adapter is None:
            self._adapter = open_dataset(self._config.dataset, self._config.specs())
        return self._adapter

    def splits(self) -> tuple[str, ...]:
        """The source's splits in their order; empty if it does not exist."""
        try:
            return self.adapter.splits()
        except Any2SegError:
            return ()

    @contextmanager
    def rebuilt(self, shard: ShardId, keys: Sequence[str]) -> Iterator[Path]:
        """A temporary tar of these samples with its record beside it. Raises `DatasetError`."""
        samples = self._samples(shard[0], keys)
        encoder = SampleEncoder(self.adapter, self._config.specs())
        results = list(map_in_order(encoder, samples, self._config.prepare.workers))
        refused = [result for result in results if isinstance(result, Refused)]
        if refused:
            raise DatasetError(f"sample {refused[0].key} is refused now: {refused[0].reason}")
        with tempfile.TemporaryDirectory() as folder:
            good = [result for result in results if isinstance(result, EncodedSample)]
            DatasetRecords(Path(folder)).commit(*shard, good)
            yield Path(str(shard_path(Path(folder), *shard)))

    def _samples(self, split: str, keys: Sequence[str]) -> list[SourceSample]:
        if split not in self._listed:
            self._listed[split] = {s.key: s for s in self.adapter.samples(split)}
        listed = self._listed[split]
        removed = [key for key in keys if key not in listed]
        if removed:
            raise DatasetError(
                f"the source no longer has sample {removed[0]} ({len(removed)} in all)"
            )
        return [listed[key] for key in keys]


def _tables(path: AnyPath) -> Mapping[ShardId, pa.Table]:
    """A file's rows by shard; empty if it cannot be read."""
    try:
        return split_by_shard(read_records(path))
    except (pa.ArrowException, OSError, ValueError, KeyError):
        return {}


def _shard_id(name: str) -> ShardId:
    split, _, index = name.rpartition("-")
    if not index.isdecimal():
        raise DatasetError(f"{name}: expected a name as {shard_name('train', 1)}. Delete the file")
    return split, int(index)


def _copy(source: AnyPath, path: AnyPath) -> None:
    def copy(file: BinaryIO) -> Any:
        with source.open("rb") as original:
            shutil.copyfileobj(original, file)

    write_atomic(path, copy)
