"""Path arithmetic for object stores (`s3://bucket/prefix`, `gs://`, `az://`) with pathlib's names.

Makes no request; `pipeline.storage.remote_path` reads and writes. `ConfigError` for a URL that is not an
object store's or that holds credentials.
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
class CacheConfig:
    """Where verified copies of large objects are kept, and how many bytes of them (`[store]`)."""

    folder: Path
    max_bytes: int


@dataclass(frozen=True, slots=True, order=True)
class PureRemotePath:
    """The name of an object or prefix. Small, hashable and picklable."""

    root: str
    """`s3://bucket`."""
    key: str
    """Everything after the bucket, without leading or trailing slashes."""
    cache: CacheConfig | None = field(default=None, compare=False, repr=False)
    """For `pipeline.storage.local_copies`; paths made from this one inherit it."""

    @classmethod
    def of(cls, url: str, cache: CacheConfig | None = None) -> Self:
        """The path of a URL. Raises `ConfigError` for other schemes, users, passwords, queries."""
        match = _URL.fullmatch(url)
        if match is None or match["scheme"] not in SCHEMES:
            raise ConfigError(
                f"{hide_secrets(url)}: expected s3://BUCKET/PREFIX (or gs://, az://) and nothing "
                "else. Credentials belong in the environment, e.g. AWS_ACCESS_KEY_ID and "
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
        """The path below; a part may contain slashes."""
        return replace(self, key="/".join(p for p in (self.key, *parts) if p).rstrip("/"))

    @property
    def name(self) -> str:
        """The last part."""
        return self.key.rpartition("/")[2]

    @property
    def stem(self) -> str:
        """The last part without its suffix."""
        return PurePosixPath(self.key).stem

    @property
    def suffix(self) -> str:
        """The last part's suffix, with its dot."""
        return PurePosixPath(self.key).suffix

    @property
    def parent(self) -> Self:
        """The path above; the bucket's parent is the bucket."""
        return replace(self, key=self.key.rpartition("/")[0])

    def with_name(self, name: str) -> Self:
        """The sibling of that name."""
        return self.parent / name

    def with_suffix(self, suffix: str) -> Self:
        """The sibling with another suffix."""
        return self.with_name(self.stem + suffix)

    def relative_to(self, other: PureRemotePath) -> PurePosixPath:
        """This path relative to `other`. Raises `ValueError` if it is not below it."""
        if other.root != self.root:
            raise ValueError(f"{self} is not below {other}")
        return PurePosixPath(self.key).relative_to(other.key)
