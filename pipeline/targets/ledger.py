"""The commit records of a target store: which shards have valid targets.

    ledger/<split>/<shard>.json      written last; names the shard, the tower and each object's sha256

A record is valid if it names the shard's and the tower's digests and every object exists. In an
object store the record is tagged with the versions of its objects, so that one listing shows
whether another machine has replaced one since; if a version differs, the object's sha256 decides.
The status of many shards takes one listing and parallel reads. A record that cannot be read counts
as missing.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from pipeline import VERSION
from pipeline.schemas import LEDGER_SCHEMA
from pipeline.shards.manifest import ShardInfo
from pipeline.storage.files import AnyPath, json_bytes, map_paths, relative, sha256_file, write_json
from pipeline.storage.publish import Published
from pipeline.storage.remote_path import RemotePath

VERSIONS_TAG = "versions"
FIELDS: Mapping[str, type] = {
    "shard_sha256": str,
    "tower_fingerprint": str,
    "num_rows": int,
    "objects": dict,
}
"""Required fields of a record, and their types."""

VersionOf = Callable[[RemotePath], str | None]
"""Version (ETag) of an object in an object store; None: no such object."""


@dataclass(frozen=True, slots=True)
class CommitStatus:
    """Whether a shard's targets are committed in a store."""

    record: Mapping[str, Any] | None = None
    is_current: bool = False
    """The record names the shard's present bytes and the store's tower."""
    is_whole: bool = False
    """Every object that the record names exists."""

    @property
    def is_committed(self) -> bool:
        """Whether the targets exist and belong to the shard's present bytes."""
        return self.is_current and self.is_whole


@dataclass(frozen=True, slots=True)
class Ledger:
    """The records of one store. Stateless: every call reads the files."""

    folder: AnyPath
    arrays: AnyPath
    """The `*.zarr` folder beside it."""
    tower_fingerprint: str
    object_paths: Callable[[ShardInfo], Mapping[str, AnyPath]]
    """Output to the path of its object."""

    def path(self, shard: ShardInfo) -> AnyPath:
        """Path of the shard's record."""
        return self.folder / shard.split / f"{shard.name}.json"

    def status(self, shard: ShardInfo) -> CommitStatus:
        """The status of one shard."""
        path = self.path(shard)
        if isinstance(path, RemotePath):
            return self._remote_status(shard, path, RemotePath.etag)
        try:
            record = self._parsed(path.read_bytes(), shard)
        except FileNotFoundError:
            return CommitStatus()
        return self._status(record, shard, lambda: self._all_exist(shard))

    def statuses(self, shards: Iterable[ShardInfo]) -> list[CommitStatus]:
        """The status of each shard, in order; in an object store by one listing."""
        if not (isinstance(self.folder, RemotePath) and isinstance(self.arrays, RemotePath)):
            return [self.status(shard) for shard in shards]
        arrays = self.arrays
        records, objects = map_paths(RemotePath.entries, (self.folder, arrays))

        def version(path: RemotePath) -> str | None:
            entry = objects.get(relative(path, arrays))
            return entry.etag if entry else None

        def status(shard: ShardInfo) -> CommitStatus:
            path = self.path(shard)
            assert isinstance(path, RemotePath)
            exists = relative(path, self.folder) in records
            return self._remote_status(shard, path, version) if exists else CommitStatus()

        return map_paths(status, shards)

    def write(self, shard: ShardInfo, placed: Mapping[str, Published]) -> None:
        """Commit a shard: write the record with the digests of its objects, by output."""
        path = self.path(shard)
        record = {
            "schema": LEDGER_SCHEMA,
            "shard_sha256": shard.sha256,
            "tower_fingerprint": self.tower_fingerprint,
            "num_rows": shard.num_rows,
            "objects": {name: it.sha256 for name, it in placed.items()},
            "code_version": VERSION,
        }
        if isinstance(path, RemotePath):
            # Versions are tags: in the record they would make it differ from machine to machine.
            versions = {name: it.etag for name, it in placed.items()}
            path.write(json_bytes(record), {VERSIONS_TAG: json.dumps(versions, sort_keys=True)})
        else:
            write_json(path, record)

    def _remote_status(
        self, shard: ShardInfo, path: RemotePath, version: VersionOf
    ) -> CommitStatus:
        tagged = path.find_tagged()
        if tagged is None:
            return CommitStatus()
        record = self._parsed(tagged.data, shard)
        versions = json.loads(tagged.tags.get(VERSIONS_TAG, "{}"))
        return self._status(
            record, shard, lambda: self._all_as_recorded(shard, record or {}, versions, version)
        )

    def _status(
        self, record: Mapping[str, Any] | None, shard: ShardInfo, is_whole: Callable[[], bool]
    ) -> CommitStatus:
        if record is None:
            return CommitStatus()
        # The shard's digest ties the targets to the shard's present bytes and the tower's to the weights
        # and settings: a rebuilt shard or another teacher never gets old targets.
        current = (
            record["shard_sha256"] == shard.sha256
            and record["tower_fingerprint"] == self.tower_fingerprint
            and record["num_rows"] == shard.num_rows
        )
        return CommitStatus(record, current, is_whole())

    def _all_exist(self, shard: ShardInfo) -> bool:
        # On disk existence is enough: a writer holds the store's lock and deletes an outdated record
        # before it replaces an object. Digests are compared when an object is read.
        try:
            return all(path.stat().st_size for path in self.object_paths(shard).values())
        except FileNotFoundError:
            return False

    def _all_as_recorded(
        self,
        shard: ShardInfo,
        record: Mapping[str, Any],
        versions: Mapping[str, str],
        version: VersionOf,
    ) -> bool:
        """Whether every object exists, in the recorded version or with the recorded sha256."""
        for output, path in self.object_paths(shard).items():
            assert isinstance(path, RemotePath)
            current = version(path)
            if current is None:
                return False
            # Without a store-wide lock another machine may have replaced the object after the record was
            # put. A copied bucket has other versions and the same bytes, so the digest decides.
            differs = output in versions and versions[output] != current
            if differs and sha256_file(path) != record["objects"][output]:
                return False
        return True

    def _parsed(self, data: bytes, shard: ShardInfo) -> Mapping[str, Any] | None:
        """A complete record; None if it is damaged or names other outputs."""
        try:
            record = dict(json.loads(data))
        except (ValueError, TypeError):
            return None
        if not all(isinstance(record.get(field), kind) for field, kind in FIELDS.items()):
            return None
        return record if set(record["objects"]) == set(self.object_paths(shard)) else None
