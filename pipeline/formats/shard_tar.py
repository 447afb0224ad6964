"""Shards: immutable uncompressed USTAR tars in WebDataset's layout.

A sample `KEY` is the members `KEY.<modality>.npy.zst`, `KEY.label.npy.zst` and `KEY.meta.json`,
adjacent; shards from elsewhere may have `.png` instead. The same samples give the same bytes: owner,
time and mode are fixed. Writing is atomic and durable. Reading checks the file's sha256 first, so a
corrupted or exchanged shard is a `CorruptShard`, never a wrong sample. Members are read into memory;
their names never become paths, and nothing is decoded here.
"""

from __future__ import annotations

import tarfile
from collections.abc import Container, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import BinaryIO

from pipeline.errors import CorruptShard, DigestMismatch
from pipeline.storage.files import AnyPath, sha256_file, write_atomic
from pipeline.storage.local_copies import local_copy

WRITTEN, ACCEPTED = "npy.zst", "png"
"""Suffix of the images and labels that we write, and of those that we also read."""
META_MEMBER = "meta.json"
MAX_MEMBER_NAME = 100
"""Bytes that a USTAR header holds for a name."""


def image_member(modality: str) -> str:
    """Name, without the key, of the member that is written for a modality or the label."""
    return f"{modality}.{WRITTEN}"


def stored_member(modality: str, names: Container[str]) -> str:
    """Which of a sample's member names holds a modality or the label; the written one if none does."""
    accepted = f"{modality}.{ACCEPTED}"
    return accepted if accepted in names else image_member(modality)


def shard_name(split: str, index: int) -> str:
    """`<split>-000000`: stem of the shard's tar, record and target ledger entries."""
    return f"{split}-{index:06d}"


@dataclass(frozen=True, slots=True)
class Span:
    """The byte range of a member in the tar."""

    offset: int
    num_bytes: int


@dataclass(frozen=True, slots=True)
class WrittenShard:
    """What the manifest records of a written tar."""

    sha256: str
    spans: tuple[Mapping[str, Span], ...]
    """For each sample in order: member name without the key, to its byte range."""


def write_shard(path: AnyPath, samples: Sequence[tuple[str, Mapping[str, bytes]]]) -> WrittenShard:
    """Write `(key, {member: bytes})` samples to `path`, durably and atomically."""
    spans: list[dict[str, Span]] = []

    def write(file: BinaryIO) -> None:
        with tarfile.open(fileobj=file, mode="w", format=tarfile.USTAR_FORMAT) as tar:
            for key, members in samples:
                spans.append(
                    {name: _add(tar, f"{key}.{name}", members[name]) for name in sorted(members)}
                )

    write_atomic(path, write)
    return WrittenShard(sha256_file(path), tuple(spans))


def _add(tar: tarfile.TarFile, name: str, data: bytes) -> Span:
    info = tarfile.TarInfo(
        name
    )  # time, owner and group are 0, so that bytes depend on content alone
    info.size = len(data)
    info.mode = 0o444
    # The header is exactly one block: a name that would need a second one is an error in USTAR.
    offset = tar.offset + tarfile.BLOCKSIZE
    tar.addfile(info, BytesIO(data))
    return Span(offset, len(data))


def local_shard(path: AnyPath, sha256: str) -> Path:
    """A local file with the shard's bytes, verified by this call.

    Raises `CorruptShard` unless the shard at `path` has this digest.
    """
    try:
        return local_copy(path, sha256)
    except FileNotFoundError:
        actual = "no file"
    except DigestMismatch as error:
        actual = error.actual
    raise CorruptShard(
        f"{path}: expected sha256 {sha256[:12]} as in the manifest, found {actual[:12]}. Delete "
        "the file and run `any2seg prepare CONFIG` to rebuild it from the source."
    )


def _opened(path: AnyPath, sha256: str) -> BinaryIO:
    while True:
        # Another process may delete the copy from the bounded cache between check and open.
        with suppress(FileNotFoundError):
            return local_shard(path, sha256).open("rb")


def read_shard(path: AnyPath, sha256: str) -> Iterator[tuple[str, dict[str, bytes]]]:
    """The samples of a verified shard: (key, {member name: bytes}), in row order, not decoded.

    Raises `CorruptShard` if the file is missing, corrupted or not the one that the manifest names.
    """
    from webdataset.tariterators import group_by_keys, tar_file_expander

    with _opened(path, sha256) as stream:
        files = tar_file_expander([{"url": str(path), "stream": stream}])
        # `lcase=False`: modalities `NIR` and `nir` would be one.
        for sample in group_by_keys(files, lcase=False):
            key = sample["__key__"]
            yield key, {name: data for name, data in sample.items() if not name.startswith("__")}
