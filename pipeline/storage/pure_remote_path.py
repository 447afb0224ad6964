"""Paths in an object store as text: `s3://bucket/prefix` (`gs://`, `az://`), with pathlib's names.

No request is made here; `pipeline.storage.remote_path` reads and writes. `ConfigError` for a URL that
is none of an object store, or that holds credentials.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import Self

from pipeline.errors import ConfigError
from pipeline.storage.object_store import SCHEMES, hide_secrets

_URL = re.compile(r"(?P<scheme>[a-z0-9]+)://(?P<bucket>[A-Za-z0-9._-]+)(?:/(?P<key>[^?#]*))?")


@dataclass(frozen=True, slots=True)
class CacheSettings:
    """Where verified copies of large objects are kept, and how many bytes of them."""

    folder: Path
    max_bytes: int


@dataclass(frozen=True, slots=True, order=True)
class PureRemotePath:
    """The name of an object or prefix. Small, hashable and picklable."""

    root: str
    """`s3://bucket`."""
    key: str
    """Everything after the bucket, without slashes at its ends."""
    cache: CacheSettings | None = field(default=None, compare=False, repr=False)
    """For `pipeline.storage.local_copies`; every path made from this one has it too."""

    @classmethod
    def of(cls, url: str, cache: CacheSettings | None = None) -> Self:
        """The path of a URL. Raises `ConfigError` for other schemes, users, passwords, queries."""
        match = _URL.fullmatch(url)
        if match is None or match["scheme"] not in SCHEMES:
            raise ConfigError(
                f"{hide_secrets(url)}: expected s3://BUCKET/PREFIX (or gs://, az://) and nothing "
                "else. Credentials belong into the environment, e.g. AWS_ACCESS_KEY_ID and "
                "AWS_SECRET_ACCESS_KEY"
            )
        key = (match["key"] or "").strip("/")
        if any(part in {"", ".", ".."} for part in key.split("/")) and key:
            raise ConfigError(f"{url}: expected plain folder names after the bucket")
        return cls(f"{match['scheme']}://{match['bucket']}", key, cache)

    def __str__(self) -> str:
        return f"{self.root}/{self.key}" if self.key else self.root

    def __truediv__(self, part: str) -> Self:
        return self.joinpath(part)

    def joinpath(self, *parts: str) -> Self:
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
    def parent(self) -> Self:
        """The path above; the bucket's is the bucket."""
        return replace(self, key=self.key.rpartition("/")[0])

    def with_name(self, name: str) -> Self:
        """The neighbour of that name."""
        return self.parent / name

    def with_suffix(self, suffix: str) -> Self:
        """The neighbour with that ending instead of the last one."""
        return self.with_name(self.stem + suffix)

    def relative_to(self, other: PureRemotePath) -> PurePosixPath:
        """The way from `other` to here. Raises `ValueError` if it does not lead here."""
        if other.root != self.root:
            raise ValueError(f"{self} is not below {other}")
        return PurePosixPath(self.key).relative_to(other.key)
