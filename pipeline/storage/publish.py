"""How an object that others may be writing too gets to its place, and is known to be there whole.

On disk the store's lock keeps others away: the object is written, read back and compared. In an
object store there is no lock, and two machines may come with different bits (a processor's and an
accelerator's) for one place. Then the first one stays: a put succeeds only if the place is empty or
holds what was found there and judged broken or made from something else. Every object carries its
sha256 and what it was made from as tags, so that whoever comes later takes it over, with *its*
digest, instead of replacing it. `CorruptTarget` if a store gives back other bytes than were put.
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
class Placed:
    """The object that is at its place now."""

    sha256: str
    etag: str = ""
    """Its version in an object store; empty on disk."""


def place(path: AnyPath, data: bytes, made_from: str) -> Placed:
    """Let `path` hold `data`, or what another writer made from the same `made_from` before.

    Raises `CorruptTarget` if what was written cannot be read back.
    """
    if isinstance(path, RemotePath):
        return _place_in_store(path, data, made_from)
    write_bytes(path, data)
    if path.read_bytes() != data:
        raise _misread(path)
    return Placed(_sha256(data))


def _place_in_store(path: RemotePath, data: bytes, made_from: str) -> Placed:
    tags = {SHA256_TAG: _sha256(data), MADE_FROM_TAG: made_from}
    put = None
    while True:
        found = path.find_tagged()
        if found is not None and _is_whole(found, made_from):
            return Placed(found.tags[SHA256_TAG], found.etag)
        if found is not None and found.etag == put:
            raise _misread(path)
        put = path.write_if(found.etag if found else None, data, tags)


def _is_whole(found: Tagged, made_from: str) -> bool:
    """Whether an object is what its writer put, and of the same origin."""
    same = found.tags.get(MADE_FROM_TAG) == made_from
    return same and found.tags.get(SHA256_TAG) == _sha256(found.data)


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _misread(path: AnyPath) -> CorruptTarget:
    return CorruptTarget(
        f"{path}: read back other bytes than were written. Check the disk or the store, then run again."
    )
