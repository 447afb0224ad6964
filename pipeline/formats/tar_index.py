"""Index of a WebDataset tar: the sample of each member and the byte range of its content.

A member `KEY.<ending>` belongs to sample KEY: the key ends at the first dot after the last slash.
Only headers are read, nothing is unpacked, and a name never becomes a path. A compressed or truncated
tar is a `DatasetError`.
"""

from __future__ import annotations

import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby
from pathlib import Path, PurePosixPath
from tarfile import BLOCKSIZE

from pipeline.errors import DatasetError


@dataclass(frozen=True, slots=True)
class TarMember:
    """A file inside a tar; reads its byte range of the tar."""

    tar: Path
    name: str
    offset: int
    num_bytes: int

    def __str__(self) -> str:
        return f"{self.tar}:{self.name}"

    @property
    def suffix(self) -> str:
        """Last suffix of the name, with its dot, e.g. `.png`."""
        return PurePosixPath(self.name).suffix

    @property
    def key(self) -> str:
        """Name up to the first dot after the last slash."""
        return self.name[: len(self.name) - len(self.ending) - 1]

    @property
    def ending(self) -> str:
        """What follows the key and the dot, e.g. `rgb.png`."""
        return PurePosixPath(self.name).name.partition(".")[2]

    def read_bytes(self) -> bytes:
        """The member's bytes."""
        with self.tar.open("rb") as file:
            file.seek(self.offset)
            return file.read(self.num_bytes)


@dataclass(frozen=True)
class TarSample:
    """Adjacent members of one key."""

    key: str
    members: tuple[TarMember, ...]

    @cached_property
    def by_ending(self) -> dict[str, TarMember]:
        """Ending to member; the last one of equal endings."""
        return {member.ending: member for member in self.members}


def list_tar(path: Path) -> list[TarSample]:
    """The samples of a tar, in order. `DatasetError` if it is truncated or compressed."""
    # Adjacent members only, as webdataset groups a stream: a key that comes back is another sample.
    return [TarSample(key, tuple(group)) for key, group in groupby(_members(path), _key)]


def _key(member: TarMember) -> str:
    return member.key


def _members(path: Path) -> Iterator[TarMember]:
    try:
        # "r:" refuses compression: members of a compressed tar have no byte range in the file.
        with tarfile.open(path, mode="r:") as tar:
            end = 0
            for info in tar:
                # Content is padded to whole blocks; the next header, or the end mark, follows it.
                end = info.offset_data + -(-info.size // BLOCKSIZE) * BLOCKSIZE
                name = PurePosixPath(info.name).name
                # A hidden file (`._a.png` of macOS) and one without an ending belong to no sample.
                if info.isreg() and "." in name[1:] and name[0] != ".":
                    yield TarMember(path, info.name, info.offset_data, info.size)
        # `tarfile` takes a truncated header for the end of the archive; only a block of zeros is it.
        with path.open("rb") as file:
            file.seek(end)
            if file.read(BLOCKSIZE) != bytes(BLOCKSIZE):
                raise tarfile.ReadError("no end of the archive")
    except (tarfile.TarError, OSError) as error:
        raise DatasetError(
            f"{path}: expected a whole uncompressed tar, found: {error}. Copy it again or "
            "rebuild it."
        ) from None
