"""Objects and prefixes of an object store, read, written and listed with pathlib's names.

Every call is one request or a listing; a put is atomic. Credentials and the endpoint come from the
environment alone (`AWS_ACCESS_KEY_ID`, `AWS_ENDPOINT_URL`, ...) and appear in no path, error or repr.
Failing requests are retried for a bounded time (`pipeline.storage.object_store`), then raise
`StorageUnavailable`. `ConfigError` names what the environment lacks; a missing object is a
`FileNotFoundError`, as on disk.
"""

from __future__ import annotations

import io
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any, BinaryIO, Literal, TypeVar, cast

from pipeline.errors import StorageUnavailable
from pipeline.storage.object_store import (
    RETRY_S,
    connect,
    insist,
    library,
    not_found,
    translated,
)
from pipeline.storage.pure_remote_path import PureRemotePath

if TYPE_CHECKING:
    from obstore.store import ObjectStore

Result = TypeVar("Result")
READ_BLOCK_BYTES = 1 << 20
"""Bytes that `open` fetches at a time."""


@dataclass(frozen=True, slots=True)
class Entry:
    """Size and version of an object."""

    num_bytes: int
    etag: str


@dataclass(frozen=True, slots=True)
class Tagged:
    """An object at one moment: its bytes, version and tags."""

    data: bytes
    etag: str
    tags: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class RemoteStat:
    """The part of `os.stat_result` that an object has."""

    st_size: int


@dataclass(frozen=True, slots=True, order=True)
class RemotePath(PureRemotePath):
    """One object or prefix, to read and write; no two calls share state."""

    def is_file(self) -> bool:
        """Whether there is an object of this name."""
        return self._head() is not None

    def is_dir(self) -> bool:
        """Whether there are objects below."""
        return next(self.iterdir(), None) is not None

    def exists(self) -> bool:
        """Whether there is an object of this name or below it."""
        return self.is_file() or self.is_dir()

    def stat(self) -> RemoteStat:
        """Size of the object. Raises `FileNotFoundError`."""
        entry = self._head()
        if entry is None:
            raise not_found(self)
        return RemoteStat(entry.num_bytes)

    def etag(self) -> str | None:
        """The object's version (its entity tag); None if there is no object."""
        entry = self._head()
        return None if entry is None else entry.etag

    def read_bytes(self) -> bytes:
        """The whole object. Raises `FileNotFoundError`."""
        return self.read_tagged().data

    def read_text(self) -> str:
        """The whole object, as UTF-8."""
        return self.read_bytes().decode()

    def read_tagged(self) -> Tagged:
        """The whole object with its version and tags. Raises `FileNotFoundError`."""

        def read(obstore: Any, bucket: ObjectStore) -> Tagged:
            result = obstore.get(bucket, self.key)
            tags = {str(k): str(v) for k, v in result.attributes.items()}
            return Tagged(bytes(result.bytes()), _etag(result.meta), tags)

        return self._insist("read", read)

    def find_tagged(self) -> Tagged | None:
        """`read_tagged`, or None if there is no object."""
        try:
            return self.read_tagged()
        except FileNotFoundError:
            return None

    def read_range(self, offset: int, num_bytes: int) -> bytes:
        """At most `num_bytes` bytes from `offset`, which lies inside the object."""

        def read(obstore: Any, bucket: ObjectStore) -> bytes:
            return bytes(obstore.get_range(bucket, self.key, start=offset, length=num_bytes))

        if num_bytes == 0:  # HTTP has no empty range
            return b""

        return self._insist("read", read)

    def blocks(self) -> Iterator[bytes]:
        """The object's bytes in order, a few megabytes at a time."""
        size = self.stat().st_size
        for offset in range(0, size, 8 * READ_BLOCK_BYTES):
            yield self.read_range(offset, min(8 * READ_BLOCK_BYTES, size - offset))

    def open(self, mode: Literal["rb"] = "rb") -> BinaryIO:
        """A seekable reader of the object. Raises `FileNotFoundError`."""
        if mode != "rb":
            raise ValueError(f"{self}: expected mode 'rb', found {mode!r}; write with write_bytes")
        raw = _RangeReader(self, self.stat().st_size)
        return cast(BinaryIO, io.BufferedReader(raw, READ_BLOCK_BYTES))

    def write(self, data: bytes, tags: Mapping[str, str] | None = None) -> str:
        """Replace the object by `data`, atomically; returns the new version."""
        _require_guards(self)

        def put(obstore: Any, bucket: ObjectStore) -> str:
            result = obstore.put(bucket, self.key, data, attributes=dict(tags or {}))
            return str(result["e_tag"])

        return self._insist("write", put)

    def write_if(
        self, etag: str | None, data: bytes, tags: Mapping[str, str] | None = None
    ) -> str | None:
        """Replace the object only if its version is `etag` (None: only if there is no object).

        Returns the new version; None if another writer was first. A put whose answer was lost may
        have happened, so the object is read back: equal `data` counts as ours, an unchanged version
        is tried again. Callers that must distinguish writers put something unique in `data`.
        """
        give_up = time.monotonic() + RETRY_S
        while True:
            try:
                new_etag, answered = self._put_if(etag, data, dict(tags or {})), True
            except StorageUnavailable:
                new_etag, answered = None, False
                if time.monotonic() > give_up:
                    raise
            if new_etag is not None:
                return new_etag
            # Read back after a refusal too: obstore itself may have repeated a put that had already
            # succeeded, and its second try then fails on the version that the first one made.
            current = self.find_tagged()
            if current is not None and current.data == data:
                return current.etag
            if answered or (current.etag if current else None) != etag:
                return None

    def _put_if(self, etag: str | None, data: bytes, tags: dict[str, str]) -> str | None:
        """One conditional put; None: the condition did not hold."""
        _require_guards(self)
        obstore, bucket = library(self.root), connect(self.root)
        refusals = (
            obstore.exceptions.AlreadyExistsError,
            obstore.exceptions.PreconditionError,
            # With a version, a deleted object; without, only a missing bucket can be "not found".
            *([FileNotFoundError] if etag else []),
        )
        try:
            with translated(self, "write"):
                mode: Any = "create" if etag is None else {"e_tag": etag}
                result = obstore.put(bucket, self.key, data, mode=mode, attributes=tags)
        except refusals:
            return None
        return str(result["e_tag"])

    def unlink(self, missing_ok: bool = False) -> None:
        """Delete the object."""
        _require_guards(self)
        if not missing_ok and self._head() is None:
            raise not_found(self)
        self._insist("delete", lambda obstore, bucket: obstore.delete(bucket, self.key))

    def iterdir(self) -> Iterator[RemotePath]:
        """The objects and prefixes directly below, sorted by name; empty if nothing is below."""
        listing = self._insist(
            "list", lambda obstore, bucket: obstore.list_with_delimiter(bucket, self.key or None)
        )
        keys = [str(item["path"]) for item in listing["objects"]]
        keys += [str(prefix).rstrip("/") for prefix in listing["common_prefixes"]]
        yield from (replace(self, key=key) for key in sorted(set(keys)) if key != self.key)

    def entries(self) -> dict[str, Entry]:
        """Every object below, at any depth: relative name to size and version."""
        start = len(self.key) + 1 if self.key else 0

        def listed(obstore: Any, bucket: ObjectStore) -> dict[str, Entry]:
            return {
                str(item["path"])[start:]: Entry(item["size"], _etag(item))
                for batch in obstore.list(bucket, self.key or None)
                for item in batch
            }

        return self._insist("list", listed)

    def glob(self, pattern: str) -> Iterator[RemotePath]:
        """Paths below that match part by part (`*`, `?`, `[...]`), sorted by name."""
        first, _, rest = pattern.partition("/")
        if not set(first) & set("*?["):
            # A plain name needs no listing; whether it exists shows at the pattern's last part.
            paths = [self / first] if rest or (self / first).exists() else []
        else:
            paths = [path for path in self.iterdir() if fnmatchcase(path.name, first)]
        for path in paths:
            yield from path.glob(rest) if rest else (path,)

    def rglob(self, pattern: str) -> Iterator[RemotePath]:
        """Objects below, at any depth, whose last parts match."""
        names = sorted(self.entries())
        yield from (self / name for name in names if PurePosixPath(name).match(pattern))

    def _head(self) -> Entry | None:
        try:
            meta = self._insist("stat", lambda obstore, bucket: obstore.head(bucket, self.key))
        except FileNotFoundError:
            return None
        return Entry(meta["size"], _etag(meta))

    def _insist(self, doing: str, call: Callable[[Any, ObjectStore], Result]) -> Result:
        """`call(obstore, bucket)`, repeated until it is answered; it may run twice."""
        return insist(self, doing, lambda: call(library(self.root), connect(self.root)))


_guards: dict[RemotePath, Callable[[], None]] = {}
"""Lease objects that this process holds, to the check that raises once the lease is lost."""


@contextmanager
def guarded(lease: RemotePath, check: Callable[[], None]) -> Iterator[None]:
    """Call `check` before every write beside and below `lease`: a holder that lost it stops writing."""
    _guards[lease] = check
    try:
        yield
    finally:
        del _guards[lease]


def _require_guards(path: RemotePath) -> None:
    """Call the checks of all leases that cover `path`."""
    for lease, check in list(_guards.items()):  # a copy: other threads take and release leases
        folder = f"{lease.parent.key}/" if lease.parent.key else ""
        # The lease object itself is free, or no lease could be renewed or released.
        if path != lease and lease.root == path.root and path.key.startswith(folder):
            check()


class _RangeReader(io.RawIOBase):
    """Reads an object by ranges."""

    def __init__(self, path: RemotePath, size: int) -> None:
        self._path, self._size, self._position = path, size, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._size}[whence]
        self._position = max(0, start + offset)
        return self._position

    def readinto(self, buffer: Any, /) -> int:
        num_bytes = min(len(buffer), max(0, self._size - self._position))
        buffer[:num_bytes] = self._path.read_range(self._position, num_bytes)
        self._position += num_bytes
        return num_bytes


def _etag(meta: Any) -> str:
    return str(meta["e_tag"] or "")
