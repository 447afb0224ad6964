"""Repair of a prepared dataset: broken shards and records are made again from the source, or refused by name.

What is made again is written in a temporary folder first and compared with the digest that the dataset's
records name. Only the very same bytes take the place of the broken ones: if the source has changed, the shard
stays as it is and the finding is left, since what was computed and trained from it would silently mean
something else. Needs the dataset's lock; nothing is written elsewhere.
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
from pipeline.shards.manifest_tables import Place, shard_sha256, split_by_shard
from pipeline.shards.prepare import write_description
from pipeline.shards.sample_encoder import EncodedSample, Refused, SampleEncoder
from pipeline.storage.files import AnyPath, find_paths, sha256_file, write_atomic
from pipeline.storage.local_copies import local_copy

_RECORD = {Kind.SHARD_RECORD_MISSING, Kind.SHARD_RECORD_UNREADABLE}
_REMAKE = {
    Kind.SHARD_MISSING,
    Kind.SHARD_TRUNCATED,
    Kind.SHARD_ALTERED,
    Kind.SHARD_MEMBERS,
    Kind.MANIFEST_DIFFERS,
}


class DatasetRepair:
    """Repairs one dataset folder, finding by finding. Hold the folder's lock."""

    def __init__(self, config: Config, folder: AnyPath) -> None:
        self._config, self._folder = config, folder
        self._manifest = _tables(folder / MANIFEST)
        self._source = _Source(config)

    def repair(self, finding: Finding) -> None:
        """Mend one finding. Raises `Any2SegError` with the reason if it must be left."""
        for path in finding.drop:
            path.unlink(missing_ok=True)
        if finding.kind == Kind.DESCRIPTION:
            write_description(self._config, self._source.adapter, self._folder)
        elif finding.kind == Kind.REFUSALS_UNREADABLE:
            self._restore_refusals(_place(finding.shard))
        elif finding.kind in _RECORD:
            self._restore_record(_place(finding.shard))
        elif finding.kind in _REMAKE and finding.shard:
            self._remake(_place(finding.shard))

    def merge(self) -> None:
        """Put manifest and quarantine together again from the records.

        Raises `DatasetError` if a committed shard has no tar: merging would forget it.
        """
        for record in find_paths(self._folder / SHARDS, f"*/*{RECORD_SUFFIX}"):
            tar = record.with_suffix(".tar")
            if not record.name.endswith(REFUSED_SUFFIX) and not tar.exists():
                raise DatasetError(f"{tar}: is gone, so {MANIFEST} is left as it is")
        splits = self._source.splits() or tuple(dict.fromkeys(split for split, _ in self._manifest))
        DatasetRecords(self._folder, use_manifest=False).merge(splits)

    def _restore_refusals(self, place: Place) -> None:
        """From the quarantine, which holds the same rows; without it the samples are tried anew."""
        try:
            rows = read_rows(self._folder / QUARANTINE)
        except (pa.ArrowException, OSError):
            raise DatasetError(
                f"{self._folder / QUARANTINE}: cannot be read either. Run `{PREPARE}`: it looks at the "
                "refused samples of the shard again"
            ) from None
        own = [row for row in rows if (row["split"], row["shard"]) == place]
        if own:
            path = refusals_path(shard_path(self._folder, *place))
            write_rows(path, own, QUARANTINE_SCHEMA)

    def _restore_record(self, place: Place) -> None:
        """From the manifest, which holds the same rows, or from the source."""
        if place not in self._manifest:
            self._remake(place)
            return
        path = record_path(shard_path(self._folder, *place))
        write_rows(path, self._manifest[place].to_pylist(), MANIFEST_SCHEMA)

    def _remake(self, place: Place) -> None:
        """Make tar and record again; they are taken only if the tar has the digest on record."""
        tar = shard_path(self._folder, *place)
        keys, wanted = self._expected(place, tar)
        with self._source.made_again(place, keys) as scratch:
            found = sha256_file(scratch)
            if found not in wanted:
                raise DatasetError(
                    f"{tar}: the source gives other bytes now (sha256 {found[:SHORT]}, on record "
                    f"{', '.join(sorted(digest[:SHORT] for digest in wanted))}), so it was changed "
                    "since. Put the source back as it was, or prepare it under another root"
                )
            if not tar.exists() or sha256_file(tar) != found:
                _copy(scratch, tar)
            if not self._is_settled(place, tar):
                _copy(record_path(scratch), record_path(tar))

    def _is_settled(self, place: Place, tar: AnyPath) -> bool:
        """Whether the record can be read and the manifest says nothing else."""
        record = _tables(record_path(tar)).get(place)
        return record is not None and record.equals(self._manifest.get(place, record))

    def _expected(self, place: Place, tar: AnyPath) -> tuple[list[str], set[str]]:
        """The shard's keys, and the digests that vouch for it: the record's and the manifest's.

        If neither can be read, the tar itself says what it holds.
        """
        record = _tables(record_path(tar)).get(place)
        tables = [t for t in (record, self._manifest.get(place)) if t is not None]
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
    """The source of a dataset, opened and listed when it is first needed."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._adapter: DatasetAdapter | None = None
        self._listed: dict[str, dict[str, SourceSample]] = {}

    @property
    def adapter(self) -> DatasetAdapter:
        """The adapter. Raises `DatasetError` if the source is gone."""
        if self._adapter is None:
            self._adapter = open_dataset(self._config.dataset, self._config.specs())
        return self._adapter

    def splits(self) -> tuple[str, ...]:
        """The source's splits in their order; none if it is gone."""
        try:
            return self.adapter.splits()
        except Any2SegError:
            return ()

    @contextmanager
    def made_again(self, place: Place, keys: Sequence[str]) -> Iterator[Path]:
        """A temporary tar of these samples, its record beside it. Raises `DatasetError`."""
        samples = self._samples(place[0], keys)
        encoder = SampleEncoder(self.adapter, self._config.specs())
        results = list(map_in_order(encoder, samples, self._config.prepare.workers))
        refused = [result for result in results if isinstance(result, Refused)]
        if refused:
            raise DatasetError(f"sample {refused[0].key} is refused now: {refused[0].reason}")
        with tempfile.TemporaryDirectory() as folder:
            good = [result for result in results if isinstance(result, EncodedSample)]
            DatasetRecords(Path(folder)).commit(*place, good)
            yield Path(str(shard_path(Path(folder), *place)))

    def _samples(self, split: str, keys: Sequence[str]) -> list[SourceSample]:
        if split not in self._listed:
            self._listed[split] = {s.key: s for s in self.adapter.samples(split)}
        listed = self._listed[split]
        gone = [key for key in keys if key not in listed]
        if gone:
            raise DatasetError(f"the source no longer has sample {gone[0]} ({len(gone)} in all)")
        return [listed[key] for key in keys]


def _tables(path: AnyPath) -> Mapping[Place, pa.Table]:
    """A file's rows by shard; none if it cannot be read."""
    try:
        return split_by_shard(read_records(path))
    except (pa.ArrowException, OSError, ValueError, KeyError):
        return {}


def _place(shard: str) -> Place:
    split, _, index = shard.rpartition("-")
    if not index.isdecimal():
        raise DatasetError(f"{shard}: expected a name as {shard_name('train', 1)}. Delete the file")
    return split, int(index)


def _copy(source: AnyPath, path: AnyPath) -> None:
    def copy(file: BinaryIO) -> Any:
        with source.open("rb") as original:
            shutil.copyfileobj(original, file)

    write_atomic(path, copy)
