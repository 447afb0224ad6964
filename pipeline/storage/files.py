"""Durable, atomic files on disk or in an object store: a reader never sees a partial one.

On disk a file is written under a temporary name, synced, then renamed; a killed writer leaves only
a `*.partial` beside it, which `sweep_partials` removes. In an object store (`RemotePath`) a put is
atomic and there are no folders to create. `StorageUnavailable` if a store does not answer.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

from pipeline.storage.remote_path import RemotePath

AnyPath = Path | RemotePath
"""A path on disk or in an object store."""
Item = TypeVar("Item")
Result = TypeVar("Result")

PARTIAL_SUFFIX = ".partial"
REMOTE_THREADS = 32
"""Requests in flight of `map_paths`: nearly all of a request's time is latency."""


def fsync_path(path: AnyPath) -> None:
    """Flush a file, or a directory's entries, to the disk."""
    if isinstance(path, RemotePath):
        return
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def make_folder(path: AnyPath) -> None:
    """Create a folder and its parents, so that they survive a power cut."""
    if isinstance(path, Path) and not path.is_dir():
        make_folder(path.parent)
        path.mkdir(exist_ok=True)
        # A folder is an entry of its parent: `mkdir(parents=True)` would leave those unsynced.
        fsync_path(path.parent)


def write_atomic(path: AnyPath, write: Callable[[BinaryIO], None]) -> None:
    """Call `write(file)` on a temporary file, sync it, then rename it to `path`."""
    if isinstance(path, RemotePath):
        buffer = io.BytesIO()
        write(buffer)
        path.write(buffer.getvalue())
        return
    make_folder(path.parent)
    partial = path.with_name(f"{path.name}.{os.getpid()}{PARTIAL_SUFFIX}")
    try:
        with partial.open("wb") as file:
            write(file)
            # Before the rename: a file system may make a rename durable before the data, and `path`
            # would be an empty file after a power cut.
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
    fsync_path(path.parent)  # the rename itself


def write_bytes(path: AnyPath, data: bytes) -> None:
    """Write `data` durably and atomically."""

    def write(file: BinaryIO) -> None:
        file.write(data)

    write_atomic(path, write)


def write_json(path: AnyPath, value: object) -> None:
    """Write `value` as indented JSON with sorted keys, durably and atomically.

    An identical file is left alone.
    """
    data = json_bytes(value)
    try:
        same = path.read_bytes() == data
    except FileNotFoundError:
        same = False
    if not same:
        write_bytes(path, data)


def json_bytes(value: object) -> bytes:
    """`value` as `write_json` writes it. Raises `ValueError` for NaN."""
    return (json.dumps(value, indent=2, sort_keys=True, allow_nan=False) + "\n").encode()


def read_json(path: AnyPath) -> Any:
    """Read a JSON file in UTF-8, with or without a byte order mark, whatever the locale.

    `FileNotFoundError` and `json.JSONDecodeError` pass through; other bytes are a `JSONDecodeError` too.
    """
    data = path.read_bytes()
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise json.JSONDecodeError(f"not UTF-8: {error.reason}", "", 0) from None
    return json.loads(text)


def sha256_file(path: AnyPath) -> str:
    """Hex sha256 of a file's bytes, read in blocks."""
    if isinstance(path, RemotePath):
        digest = hashlib.sha256()
        for block in path.blocks():
            digest.update(block)
        return digest.hexdigest()
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_range(path: AnyPath, offset: int, num_bytes: int) -> bytes:
    """`num_bytes` bytes of a file from `offset`; fewer at the file's end."""
    if isinstance(path, RemotePath):
        return path.read_range(offset, num_bytes)
    with path.open("rb", buffering=0) as file:
        file.seek(offset)
        return file.read(num_bytes)


def map_paths(function: Callable[[Item], Result], items: Iterable[Item]) -> list[Result]:
    """`function(item)` for each item, in order, many at once: for small reads of an object store."""
    with ThreadPoolExecutor(REMOTE_THREADS) as threads:
        return list(threads.map(function, items))


def find_paths(folder: AnyPath, pattern: str) -> list[AnyPath]:
    """The paths of `folder.glob(pattern)`, sorted."""
    if isinstance(folder, RemotePath):
        return [*sorted(folder.glob(pattern))]
    return [*sorted(folder.glob(pattern))]


def relative(path: AnyPath, root: AnyPath) -> str:
    """`path` relative to `root`, with slashes. Raises `ValueError` if it is not below it."""
    if isinstance(path, RemotePath) and isinstance(root, RemotePath):
        return str(path.relative_to(root))
    if isinstance(path, Path) and isinstance(root, Path):
        return path.relative_to(root).as_posix()
    raise ValueError(f"{path} is not below {root}")


def sweep_partials(folder: AnyPath) -> int:
    """Delete the temporary files of killed writers in `folder` (recursively); returns their number.

    An object store has none.
    """
    if isinstance(folder, RemotePath) or not folder.is_dir():
        return 0
    partials = list(folder.rglob(f"*{PARTIAL_SUFFIX}"))
    for partial in partials:
        partial.unlink(missing_ok=True)
    return len(partials)
