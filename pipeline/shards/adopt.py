"""Source shards that already have the stored form become shards of the dataset without re-encoding.

A source tar fits if a chunk is exactly its samples in order, each with its own key, and every image
is stored in a form that we read (`pipeline.formats.image_codec`), so that nothing had to be changed.
It is hard-linked as the shard (copied where a link is impossible, as into an object store), byte for
byte the same file, extra members included. Its sha256 goes into the manifest like any other shard's,
so a later change of the original is detected. `OSError` if it can be neither linked nor copied.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import BinaryIO

from pipeline.formats.shard_tar import MAX_MEMBER_NAME, Span, WrittenShard
from pipeline.formats.tar_index import TarSample, list_tar
from pipeline.storage.files import AnyPath, fsync_path, make_folder, sha256_file, write_atomic
from pipeline.storage.remote_path import RemotePath


def adopt_tar(path: AnyPath, source: Path, keys: Sequence[str]) -> WrittenShard | None:
    """Make `source` the shard at `path`, or return None if it is not exactly the samples `keys`."""
    samples = list_tar(source)
    if [sample.key for sample in samples] != list(keys) or not all(map(_is_plain, samples)):
        return None
    _link_or_copy(source, path)
    return WrittenShard(sha256_file(path), tuple(map(_spans, samples)))


def _is_plain(sample: TarSample) -> bool:
    """Whether the header block right before each member's bytes holds its whole, unique name."""
    names = [member.name for member in sample.members]
    short = all(len(name.encode()) <= MAX_MEMBER_NAME for name in names)
    return short and len(set(names)) == len(names)


def _spans(sample: TarSample) -> Mapping[str, Span]:
    return {m.ending: Span(m.offset, m.num_bytes) for m in sample.members}


def _link_or_copy(source: Path, path: AnyPath) -> None:
    def copy(file: BinaryIO) -> None:
        with source.open("rb") as original:
            shutil.copyfileobj(original, file)

    if isinstance(path, RemotePath):
        write_atomic(path, copy)
        return
    make_folder(path.parent)
    # No temporary name is needed: without its commit record, written later, the link does not count.
    path.unlink(missing_ok=True)
    try:
        os.link(source.resolve(), path)
    except OSError:  # another file system, or one without hard links
        write_atomic(path, copy)
    fsync_path(path)
    fsync_path(path.parent)
