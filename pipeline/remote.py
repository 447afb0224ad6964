"""Paths in an object store: `s3://bucket/prefix` (`gs://`, `az://` alike) with pathlib's names.

Every call is one request or a listing; a put is atomic. Credentials and the endpoint come from the
environment alone (`AWS_ACCESS_KEY_ID`, `AWS_ENDPOINT_URL`, ...) and stand in no path, error or
repr. Requests that fail are tried again with growing pauses for at most `RETRY_S` seconds, then
raise `StorageUnavailable`. `ConfigError` says what the environment or the URL lacks; a missing
object is a `FileNotFoundError`, as on disk. obstore is imported on first use.
"""

from __future__ import annotations

import errno
import io
import os
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import timedelta
from fnmatch import fnmatchcase
from functools import cache
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, BinaryIO, Literal, cast

from pipeline.errors import ConfigError, StorageUnavailable

if TYPE_CHECKING:
    from obstore.store import ClientConfig, ObjectStore, RetryConfig

SCHEMES = ("s3", "gs", "az")
RETRY_S = 60.0
"""Seconds after which a request that keeps failing is given up."""
MAX_RETRIES = 12
REQUEST_TIMEOUT_S = 30.0
READ_BLOCK_BYTES = 1 << 20
"""What `open` fetches at a time."""
LOCAL_ENDPOINT = "http://"
_URL = re.compile(r"(?P<scheme>[a-z0-9]+)://(?P<bucket>[A-Za-z0-9._-]+)(?:/(?P<key>[^?#]*))?")


@dataclass(frozen=True, slots=True)
class CacheSettings:
    """Where verified copies of large objects are kept, and how many bytes of them."""

    folder: Path
    max_bytes: int


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
class RemotePath:
    """One object or prefix. Small, hashable and picklable; no two calls share state."""

    root: str
    """`s3://bucket`."""
    key: str
    """Everything after the bucket, without slashes at its ends."""
    cache: CacheSettings | None = field(default=None, compare=False, repr=False)
    """For `pipeline.shard_cache`; every path made from this one has it too."""

    @classmethod
    def of(cls, url: str, cache: CacheSettings | None = None) -> RemotePath:
        """The path of a URL. Raises `ConfigError` for other schemes, users, passwords, queries."""
        match = _URL.fullmatch(url)
        if match is None or match["scheme"] not in SCHEMES:
            raise ConfigError(f"{hide_secrets(url)}: {URL_RULE}")
        key = (match["key"] or "").strip("/")
        if any(part in {"", ".", ".."} for part in key.split("/")) and key:
            raise ConfigError(f"{url}: expected plain folder names after the bucket")
        return cls(f"{match['scheme']}://{match['bucket']}", key, cache)

    def __str__(self) -> str:
        return f"{self.root}/{self.key}" if self.key else self.root

    def __truediv__(self, part: str) -> RemotePath:
        return self.joinpath(part)

    def joinpath(self, *parts: str) -> RemotePath:
        """The path below; a part may hold slashes."""
        return replace(self, key="/".join(p for p in (self.key, *parts) if p).rstrip("/"))

    @property
    def name(self) -> str:
        """The last part."""
        return self.key.rpartition("/")[2]

    @property
    def stem(self) -> str:
        """The last part without its last ending."""
        return PurePosixPath(self.key).stem

    @property
    def suffix(self) -> str:
        """The last ending, with its dot."""
        return PurePosixPath(self.key).suffix

    @property
    def parent(self) -> RemotePath:
        """The path above; the bucket's is the bucket."""
        return replace(self, key=self.key.rpartition("/")[0])

    def with_name(self, name: str) -> RemotePath:
        """The neighbour of that name."""
        return self.parent / name

    def with_suffix(self, suffix: str) -> RemotePath:
        """The neighbour with that ending instead of the last one."""
        return self.with_name(self.stem + suffix)

    def relative_to(self, other: RemotePath) -> PurePosixPath:
        """The way from `other` to here. Raises `ValueError` if it does not lead here."""
        if other.root != self.root:
            raise ValueError(f"{self} is not below {other}")
        return PurePosixPath(self.key).relative_to(other.key)

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
            raise self._not_found()
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
        import obstore

        with self._errors("read"):
            result = obstore.get(self._client(), self.key)
            data = bytes(result.bytes())
        tags = {str(k): str(v) for k, v in result.attributes.items()}
        return Tagged(data, _etag(result.meta), tags)

    def read_range(self, offset: int, num_bytes: int) -> bytes:
        """At most `num_bytes` bytes from `offset`, which lies inside the object."""
        import obstore

        if num_bytes == 0:
            return b""
        with self._errors("read"):
            return bytes(
                obstore.get_range(self._client(), self.key, start=offset, length=num_bytes)
            )

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
        etag = self._put(data, tags, None)
        assert etag is not None
        return etag

    def write_if(
        self, etag: str | None, data: bytes, tags: Mapping[str, str] | None = None
    ) -> str | None:
        """Replace the object only if its version is `etag` (None: only if there is no object).

        Returns the new version; None if another writer was first. A put whose answer was lost may
        have happened: the object is then read back, and `data` there counts as ours.
        """
        put = self._put(data, tags, etag or "")
        if put is not None:
            return put
        try:
            found = self.read_tagged()
        except FileNotFoundError:
            return None
        return found.etag if found.data == data else None

    def unlink(self, missing_ok: bool = False) -> None:
        """Delete the object."""
        import obstore

        require_guards(self)
        if not missing_ok and self._head() is None:
            raise self._not_found()
        with self._errors("delete"):
            obstore.delete(self._client(), self.key)

    def iterdir(self) -> Iterator[RemotePath]:
        """The objects and prefixes right below, in the order of their names; none if it is not there."""
        import obstore

        with self._errors("list"):
            found = obstore.list_with_delimiter(self._client(), self.key or None)
        keys = [str(item["path"]) for item in found["objects"]]
        keys += [str(prefix).rstrip("/") for prefix in found["common_prefixes"]]
        yield from (replace(self, key=key) for key in sorted(set(keys)) if key != self.key)

    def entries(self) -> dict[str, Entry]:
        """Everything below, however deep: name from here on to size and version."""
        import obstore

        start = len(self.key) + 1 if self.key else 0
        with self._errors("list"):
            return {
                str(item["path"])[start:]: Entry(item["size"], _etag(item))
                for batch in obstore.list(self._client(), self.key or None)
                for item in batch
            }

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
        import obstore

        try:
            with self._errors("look at"):
                meta = obstore.head(self._client(), self.key)
        except FileNotFoundError:
            return None
        return Entry(meta["size"], _etag(meta))

    def _put(self, data: bytes, tags: Mapping[str, str] | None, etag: str | None) -> str | None:
        """Put; `etag` "" asks that there is none yet. None: the condition did not hold."""
        import obstore
        from obstore.exceptions import AlreadyExistsError, PreconditionError

        require_guards(self)
        mode: Any = {"e_tag": etag} if etag else "create" if etag == "" else "overwrite"
        try:
            with self._errors("write", creates=not etag):
                result = obstore.put(
                    self._client(), self.key, data, mode=mode, attributes=dict(tags or {})
                )
        except (AlreadyExistsError, PreconditionError, FileNotFoundError):
            return None
        return str(result["e_tag"])

    def _client(self) -> ObjectStore:
        if _users.setdefault("pid", os.getpid()) != os.getpid():
            raise RuntimeError(
                f"{self.root}: used in a forked process, where it would hang; start it with spawn"
            )
        return _connect(self.root)

    @contextmanager
    def _errors(self, doing: str, creates: bool = False) -> Iterator[None]:
        """Turn the store's errors into ours, which repeat nothing that a server or a header said."""
        from obstore.exceptions import (
            AlreadyExistsError,
            BaseError,
            PermissionDeniedError,
            PreconditionError,
            UnauthenticatedError,
        )

        try:
            yield
        except (AlreadyExistsError, PreconditionError):
            raise
        except (PermissionDeniedError, UnauthenticatedError) as error:
            raise ConfigError(
                f"{self}: may not {doing} it ({_cause(error)}). Check the credentials in the "
                "environment (AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_REGION for s3)."
            ) from None
        except (BaseError, FileNotFoundError) as error:
            cause = _cause(error)
            if "NoSuchBucket" in cause or (creates and isinstance(error, FileNotFoundError)):
                raise ConfigError(f"{self.root}: no such bucket. Create it first.") from None
            if isinstance(error, FileNotFoundError):
                raise self._not_found() from None
            raise StorageUnavailable(
                f"{self}: cannot {doing} it: {cause}, tried for up to {RETRY_S:.0f} s. Check the "
                "network and the store, then run again; it goes on where it stopped."
            ) from None

    def _not_found(self) -> FileNotFoundError:
        return FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(self))


URL_RULE = (
    "expected s3://BUCKET/PREFIX (or gs://, az://) and nothing else. Credentials belong into the "
    "environment, e.g. AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
)

_guards: dict[RemotePath, Callable[[], None]] = {}
"""Folders that this process holds a lease on, and what raises once it is lost."""


@contextmanager
def guarded(folder: RemotePath, check: Callable[[], None]) -> Iterator[None]:
    """Call `check` before every write below `folder`, so that a lost lease stops its holder."""
    _guards[folder] = check
    try:
        yield
    finally:
        del _guards[folder]


def require_guards(path: RemotePath) -> None:
    """Raise what the guards of the folders above `path` raise."""
    for folder, check in list(_guards.items()):
        if folder.root == path.root and f"{path.key}/".startswith(f"{folder.key}/"):
            check()


def hide_secrets(text: str) -> str:
    """`text` without what stands before an `@` or after a `?` in a URL."""
    return re.sub(r"(?<=://)\S*@", "***@", re.sub(r"(://[^\s?]*)\?\S*", r"\1?***", text))


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


_users: dict[str, int] = {}
"""The process that opened the connections, which do not survive a fork."""


@cache
def _connect(root: str) -> ObjectStore:
    """The process's connection pool to one bucket, configured by the environment."""
    try:
        from obstore.store import from_url
    except ImportError:
        raise ConfigError(
            f'{root}: object stores need the extra s3. Run `pip install "any2seg[s3]"`.'
        ) from None
    endpoint = os.environ.get("AWS_ENDPOINT_URL", os.environ.get("AWS_ENDPOINT", ""))
    client: ClientConfig = {
        "allow_http": endpoint.startswith(LOCAL_ENDPOINT),
        "timeout": timedelta(seconds=REQUEST_TIMEOUT_S),
    }
    retry: RetryConfig = {
        "max_retries": MAX_RETRIES,
        "retry_timeout": timedelta(seconds=RETRY_S),
        "backoff": {
            "init_backoff": timedelta(milliseconds=50),
            "max_backoff": timedelta(seconds=10),
            "base": 2,
        },
    }
    return from_url(root, client_options=client, retry_config=retry)


def _etag(meta: Any) -> str:
    return str(meta["e_tag"] or "")


def _cause(error: BaseException) -> str:
    """Status and error code of a failed request; the rest of the text may hold an access key."""
    text = str(error)
    status = re.search(r"status code: (\d{3}(?: [A-Z][A-Za-z ]+)?)", text)
    code = re.search(r"<Code>(\w+)</Code>", text)
    parts = [match[1] for match in (status, code) if match]
    return ", ".join(parts) or "no answer from the store"
