"""The commit records of a target store: what they say, and whether they still vouch for anything.

    ledger/<split>/<shard>.json      written last; names the shard, the tower and each object's sha256

A record counts if it names the shard's and the tower's digests and every object is there. In an
object store the record is tagged with the versions of its objects, so that one listing shows
whether another machine replaced one since; a version that differs is settled by the object's
sha256. Many shards are looked at in one listing and parallel reads. A record that cannot be read
vouches for nothing.
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
"""Fields that a record needs to vouch for anything, and their types."""

VersionOf = Callable[[RemotePath], str | None]
"""Version of an object in an object store; None: there is none."""


@dataclass(frozen=True, slots=True)
class Standing:
    """How a shard's numbers stand in a store."""

    record: Mapping[str, Any] | None = None
    is_current: bool = False
    """The record names the shard's present bytes and the store's tower."""
    is_whole: bool = False
    """Every object that the record names is there."""

    @property
    def is_committed(self) -> bool:
        """Whether the numbers are there and belong to the shard's present bytes."""
        return self.is_current and self.is_whole


@dataclass(frozen=True, slots=True)
class Ledger:
    """The records of one store; every call looks at the files."""

    folder: AnyPath
    arrays: AnyPath
    """The `*.zarr` folder beside it."""
    tower_fingerprint: str
    object_paths: Callable[[ShardInfo], Mapping[str, AnyPath]]
    """Output to the place of its object."""

    def path(self, shard: ShardInfo) -> AnyPath:
        """Where the shard's record lies."""
        return self.folder / shard.split / f"{shard.name}.json"

    def look(self, shard: ShardInfo) -> Standing:
        """How one shard stands."""
        path = self.path(shard)
        if isinstance(path, RemotePath):
            return self._remote_standing(shard, path, RemotePath.etag)
        try:
            record = self._parsed(path.read_bytes(), shard)
        except FileNotFoundError:
            return Standing()
        return self._standing(record, shard, lambda: self._all_exist(shard))

    def look_at(self, shards: Iterable[ShardInfo]) -> list[Standing]:
        """How each shard stands, in order."""
        if not (isinstance(self.folder, RemotePath) and isinstance(self.arrays, RemotePath)):
            return [self.look(shard) for shard in shards]
        arrays = self.arrays
        records, objects = map_paths(RemotePath.entries, (self.folder, arrays))

        def version(path: RemotePath) -> str | None:
            found = objects.get(relative(path, arrays))
            return found.etag if found else None

        def standing(shard: ShardInfo) -> Standing:
            path = self.path(shard)
            assert isinstance(path, RemotePath)
            there = relative(path, self.folder) in records
            return self._remote_standing(shard, path, version) if there else Standing()

        return map_paths(standing, shards)

    def write(self, shard: ShardInfo, placed: Mapping[str, Published]) -> None:
        """Vouch for the objects of a shard: output to what is at its place."""
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
            versions = {name: it.etag for name, it in placed.items()}
            path.write(json_bytes(record), {VERSIONS_TAG: json.dumps(versions, sort_keys=True)})
        else:
            write_json(path, record)

    def _remote_standing(self, shard: ShardInfo, path: RemotePath, version: VersionOf) -> Standing:
        tagged = path.find_tagged()
        if tagged is None:
            return Standing()
        record = self._parsed(tagged.data, shard)
        versions = json.loads(tagged.tags.get(VERSIONS_TAG, "{}"))
        return self._standing(
            record, shard, lambda: self._all_vouched(shard, record or {}, versions, version)
        )

    def _standing(
        self, record: Mapping[str, Any] | None, shard: ShardInfo, is_whole: Callable[[], bool]
    ) -> Standing:
        if record is None:
            return Standing()
        current = (
            record["shard_sha256"] == shard.sha256
            and record["tower_fingerprint"] == self.tower_fingerprint
            and record["num_rows"] == shard.num_rows
        )
        return Standing(record, current, is_whole())

    def _all_exist(self, shard: ShardInfo) -> bool:
        try:
            return all(path.stat().st_size for path in self.object_paths(shard).values())
        except FileNotFoundError:
            return False

    def _all_vouched(
        self,
        shard: ShardInfo,
        record: Mapping[str, Any],
        versions: Mapping[str, str],
        version: VersionOf,
    ) -> bool:
        """Whether every object is there, in the version that was recorded or with its sha256."""
        for output, path in self.object_paths(shard).items():
            assert isinstance(path, RemotePath)
            found = version(path)
            if found is None:
                return False
            differs = output in versions and versions[output] != found
            if differs and sha256_file(path) != record["objects"][output]:
                return False
        return True

    def _parsed(self, data: bytes, shard: ShardInfo) -> Mapping[str, Any] | None:
        """A complete record; None if it is damaged or of other outputs."""
        try:
            record = dict(json.loads(data))
        except (ValueError, TypeError):
            return None
        if not all(isinstance(record.get(field), kind) for field, kind in FIELDS.items()):
            return None
        return record if set(record["objects"]) == set(self.object_paths(shard)) else None
