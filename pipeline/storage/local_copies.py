"""Verified local copies of an object store's large objects, in a folder of bounded size.

A copy is named by its sha256, so the same bytes are fetched once for all data sets and runs. It is
written under a temporary name, verified, then renamed. Over the bound, the least recently used copies
are deleted. Several processes share the folder: a copy that another one deletes stays readable where
it is open. `DigestMismatch` if the object has other bytes, `FileNotFoundError` if there is none.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

from pipeline.errors import DigestMismatch
from pipeline.storage.files import PARTIAL_SUFFIX, AnyPath, sha256_file
from pipeline.storage.lease import LOCK
from pipeline.storage.pure_remote_path import CacheConfig
from pipeline.storage.remote_path import RemotePath

COPIES = "objects"
ABANDONED_S = 3600
"""Seconds after its last write at which a temporary file counts as left by a killed process."""


def local_copy(path: AnyPath, sha256: str) -> Path:
    """A local file with the bytes of `path`; its digest is verified at every call.

    A local path is returned as it is, an object is fetched into the bounded cache. Raises
    `FileNotFoundError`, or `DigestMismatch` with the actual digest.
    """
    if isinstance(path, RemotePath):
        return fetch(path, sha256)
    actual = sha256_file(path)
    if actual != sha256:
        raise DigestMismatch(str(path), sha256, actual)
    return path


def fetch(path: RemotePath, sha256: str) -> Path:
    """The verified copy of `path`, fetched if there is none or if it is corrupted."""
    if path.cache is None:
        raise ValueError(f"{path}: made without a cache; use the workspace's paths")
    copy = path.cache.folder / COPIES / sha256[:2] / sha256
    with contextlib.suppress(FileNotFoundError):
        if sha256_file(copy) == sha256:
            os.utime(copy)  # time of last use, by which `shrink` chooses; atime is often not kept
            return copy
    copy.parent.mkdir(parents=True, exist_ok=True)
    _download(path, sha256, copy)
    shrink(path.cache, keep=copy)
    return copy


def _download(path: RemotePath, sha256: str, copy: Path) -> None:
    partial = copy.with_name(f"{sha256}.{uuid.uuid4().hex}{PARTIAL_SUFFIX}")
    digest = hashlib.sha256()
    try:
        with partial.open("wb") as file:
            for block in path.blocks():
                digest.update(block)
                file.write(block)
        if digest.hexdigest() != sha256:
            raise DigestMismatch(str(path), sha256, digest.hexdigest())
        partial.replace(copy)
    finally:
        partial.unlink(missing_ok=True)


def shrink(cache: CacheConfig, keep: Path | None = None) -> int:
    """Delete the least recently used copies until the bound holds; returns their number.

    `keep` stays even if it alone is larger than the bound.
    """
    num_deleted = 0
    # Two processes that shrink at once would each count the other's deletions as still needed.
    with _exclusively(cache.folder):
        copies = sorted(_copies(cache.folder))
        total = sum(num_bytes for _, num_bytes, _ in copies)
        for _, num_bytes, copy in copies:
            if total <= cache.max_bytes:
                break
            if copy != keep:
                copy.unlink(missing_ok=True)
                total -= num_bytes
                num_deleted += 1
    return num_deleted


def _copies(folder: Path) -> Iterator[tuple[int, int, Path]]:
    """(time of last use in ns, bytes, path) of every copy and every abandoned temporary file."""
    for copy in (folder / COPIES).glob("*/*"):
        with contextlib.suppress(FileNotFoundError):
            stat = copy.stat()
            if copy.suffix == PARTIAL_SUFFIX and time.time() - stat.st_mtime < ABANDONED_S:
                continue
            yield stat.st_mtime_ns, stat.st_size, copy


@contextlib.contextmanager
def _exclusively(folder: Path) -> Iterator[None]:
    handle = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)
