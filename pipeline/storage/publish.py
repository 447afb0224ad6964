"""Publish an object once, although several machines may compute it.

On disk the store's lock excludes other writers: the object is written, read back and compared. In an
object store there is no lock, and two machines may compute different bits (a CPU's and a GPU's) for
one path. Then the first one stays: a put succeeds only if the path is empty or still holds the version
that was judged corrupted or made from something else. Every object carries its sha256 and what it was
made from as tags, so that a later writer records the digest of the object that is there instead of
replacing it. `CorruptTarget` if a store returns other bytes than were put.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from pipeline.errors import CorruptTarget
from pipeline.storage.files import AnyPath, write_bytes
from pipeline.storage.remote_path import RemotePath, Tagged

SHA256_TAG = "sha256"
MADE_FROM_TAG = "madefrom"


@dataclass(frozen=True, slots=True)
class Published:
    """The object that its path holds now."""

    sha256: str
    etag: str = ""
    """Its version in an object store; empty on disk."""


def publish_once(path: AnyPath, data: bytes, made_from: str) -> Published:
    """Write `data` to `path`, unless another writer's object of the same `made_from` is there.

    Raises `CorruptTarget` if the object cannot be read back as it was written.
    """
    if isinstance(path, RemotePath):
        return _publish_in_store(path, data, made_from)
    write_bytes(path, data)
    if path.read_bytes() != data:
        raise _misread(path)
    return Published(_sha256(data))


def _publish_in_store(path: RemotePath, data: bytes, made_from: str) -> Published:
    tags = {SHA256_TAG: _sha256(data), MADE_FROM_TAG: made_from}
    own_etag = None
    while True:
        # Also after our own put: only what was read back counts, and it may be another writer's.
        current = path.find_tagged()
        if current is not None and _is_whole(current, made_from):
            return Published(current.tags[SHA256_TAG], current.etag)
        if current is not None and current.etag == own_etag:
            raise _misread(path)
        # Conditional on the version judged above: an object that another writer put since then stays.
        own_etag = path.write_if(current.etag if current else None, data, tags)


def _is_whole(current: Tagged, made_from: str) -> bool:
    """Whether an object is what its writer put, and of the same origin."""
    same = current.tags.get(MADE_FROM_TAG) == made_from
    return same and current.tags.get(SHA256_TAG) == _sha256(current.data)


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _misread(path: AnyPath) -> CorruptTarget:
    return CorruptTarget(
        f"{path}: read back other bytes than were written. Check the disk or the store, then run again."
    )
