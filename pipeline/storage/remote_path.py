"""Objects and prefixes of an object store, read, written and listed under pathlib's names.

Every call is one request or a listing; a put is atomic. Credentials and the endpoint come from the
environment alone (`AWS_ACCESS_KEY_ID`, `AWS_ENDPOINT_URL`, ...) and stand in no path, error or
repr. What fails is tried again for a bounded time (`pipeline.storage.object_store`), then raises
`StorageUnavailable`. `ConfigError` says what the environment lacks; a missing object is a
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
"""What `open` fetches at a time."""


@dataclass(frozen=True, slots=True)
class Entry:
    """What a listing says of an object."""

    num_bytes: int
    etag: str


@dataclass(frozen=True, slots=True)
class Tagged:
    """An object as it was at one moment: its bytes, its version and what was noted on it."""

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
        found = self._head()
        if found is None:
            raise not_found(self)
        return RemoteStat(found.num_bytes)

    def etag(self) -> str | None:
        """Version of the object as the store names it; None if there is none."""
        found = self._head()
        return None if found is None else found.etag

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

        if num_bytes == 0:
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
            found = obstore.put(bucket, self.key, data, attributes=dict(tags or {}))
            return str(found["e_tag"])

        return self._insist("write", put)

    def write_if(
        self, etag: str | None, data: bytes, tags: Mapping[str, str] | None = None
    ) -> str | None:
        """Replace the object only if its version is `etag` (None: only if there is no object).

        Returns the new version; None if another writer was first. A put whose answer was lost may
        have happened: the object is then read back. `data` there counts as ours, and the put is
        tried again if nothing was changed.
        """
        give_up = time.monotonic() + RETRY_S
        while True:
            try:
                put, answered = self._put_if(etag, data, dict(tags or {})), True
            except StorageUnavailable:
                put, answered = None, False
                if time.monotonic() > give_up:
                    raise
            if put is not None:
                return put
            found = self.find_tagged()
            if found is not None and found.data == data:
                return found.etag
            if answered or (found.etag if found else None) != etag:
                return None

    def _put_if(self, etag: str | None, data: bytes, tags: dict[str, str]) -> str | None:
        """One conditional put; None: the condition did not hold."""
        _require_guards(self)
        obstore, bucket = library(self.root), connect(self.root)
        refusals = (
            obstore.exceptions.AlreadyExistsError,
            obstore.exceptions.PreconditionError,
            *([FileNotFoundError] if etag else []),
        )
        try:
            with translated(self, "write"):
                mode: Any = "create" if etag is None else {"e_tag": etag}
                found = obstore.put(bucket, self.key, data, mode=mode, attributes=tags)
        except refusals:
            return None
        return str(found["e_tag"])

    def unlink(self, missing_ok: bool = False) -> None:
        """Delete the object."""
        _require_guards(self)
        if not missing_ok and self._head() is None:
            raise not_found(self)
        self._insist("delete", lambda obstore, bucket: obstore.delete(bucket, self.key))

    def iterdir(self) -> Iterator[RemotePath]:
        """The objects and prefixes right below, in the order of their names; none if it is not there."""
        found = self._insist(
            "list", lambda obstore, bucket: obstore.list_with_delimiter(bucket, self.key or None)
        )
        keys = [str(item["path"]) for item in found["objects"]]
        keys += [str(prefix).rstrip("/") for prefix in found["common_prefixes"]]
        yield from (replace(self, key=key) for key in sorted(set(keys)) if key != self.key)

    def entries(self) -> dict[str, Entry]:
        """Everything below, however deep: name from here on to size and version."""
        start = len(self.key) + 1 if self.key else 0

        def listed(obstore: Any, bucket: ObjectStore) -> dict[str, Entry]:
            return {
                str(item["path"])[start:]: Entry(item["size"], _etag(item))
                for batch in obstore.list(bucket, self.key or None)
                for item in batch
            }

        return self._insist("list", listed)

    def glob(self, pattern: str) -> Iterator[RemotePath]:
        """Paths below that match part by part (`*`, `?`, `[...]`), in the order of their names."""
        first, _, rest = pattern.partition("/")
        if not set(first) & set("*?["):
            found = [self / first] if rest or (self / first).exists() else []
        else:
            found = [path for path in self.iterdir() if fnmatchcase(path.name, first)]
        for path in found:
            yield from path.glob(rest) if rest else (path,)

    def rglob(self, pattern: str) -> Iterator[RemotePath]:
        """Objects below, however deep, whose last parts match."""
        names = sorted(self.entries())
        yield from (self / name for name in names if PurePosixPath(name).match(pattern))

    def _head(self) -> Entry | None:
        try:
            meta = self._insist("look at", lambda obstore, bucket: obstore.head(bucket, self.key))
        except FileNotFoundError:
            return None
        return Entry(meta["size"], _etag(meta))

    def _insist(self, doing: str, call: Callable[[Any, ObjectStore], Result]) -> Result:
        """`call(obstore, bucket)` until it is answered; it may be done twice."""
        return insist(self, doing, lambda: call(library(self.root), connect(self.root)))


_guards: dict[RemotePath, Callable[[], None]] = {}
"""Lease objects that this process holds, and what raises once one is lost."""


@contextmanager
def guarded(lease: RemotePath, check: Callable[[], None]) -> Iterator[None]:
    """Call `check` before every write beside and below `lease`, so that losing it stops its holder."""
    _guards[lease] = check
    try:
        yield
    finally:
        del _guards[lease]


def _require_guards(path: RemotePath) -> None:
    """Raise what the guards that cover `path` raise."""
    for lease, check in list(_guards.items()):
        folder = f"{lease.parent.key}/" if lease.parent.key else ""
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
