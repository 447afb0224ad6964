"""Durable files: written under a temporary name, synced, then renamed; sha256 of files.

A reader never sees half a file. A killed writer leaves only a `*.partial` beside it, which
`sweep_partials` removes; the locks die with their process.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from pipeline.errors import WorkspaceBusy

PARTIAL_SUFFIX = ".partial"


def fsync_path(path: Path) -> None:
    """Flush a file or a directory entry to the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def make_folder(path: Path) -> None:
    """Create a folder and its parents, so that they survive a power cut."""
    if not path.is_dir():
        make_folder(path.parent)
        path.mkdir(exist_ok=True)
        fsync_path(path.parent)


@contextmanager
def locked(path: Path, *, wait: bool) -> Iterator[None]:
    """Hold an exclusive lock on the file `path`, which is created empty and stays.

    `wait=False` raises `WorkspaceBusy` at once if another process holds it.
    """
    make_folder(path.parent)
    handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        os.close(handle)
        raise WorkspaceBusy(
            f"{path.parent}: another process is writing here. Wait for it to end, then run again."
        ) from None
    try:
        yield
    finally:
        os.close(handle)


def write_atomic(path: Path, write: Callable[[BinaryIO], None]) -> None:
    """Call `write(file)` on a temporary file beside `path`, sync it, rename it into place."""
    make_folder(path.parent)
    partial = path.with_name(f"{path.name}.{os.getpid()}{PARTIAL_SUFFIX}")
    try:
        with partial.open("wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
    fsync_path(path.parent)


def write_bytes(path: Path, data: bytes) -> None:
    """Write `data` durably and atomically."""

    def write(file: BinaryIO) -> None:
        file.write(data)

    write_atomic(path, write)


def write_json(path: Path, value: object) -> None:
    """Write `value` as indented JSON with sorted keys, durably and atomically.

    A file that says the same already is left alone.
    """
    text = json.dumps(value, indent=2, sort_keys=True, allow_nan=False)
    data = (text + "\n").encode()
    if not path.exists() or path.read_bytes() != data:
        write_bytes(path, data)


def read_json(path: Path) -> Any:
    """Read a JSON file; `FileNotFoundError` and `json.JSONDecodeError` pass through."""
    return json.loads(path.read_text())


def sha256_file(path: Path) -> str:
    """Hex sha256 of a file's bytes, read in blocks."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sweep_partials(folder: Path) -> int:
    """Delete what killed writers left in `folder` (recursively); return how many files went."""
    partials = list(folder.rglob(f"*{PARTIAL_SUFFIX}")) if folder.is_dir() else []
    for partial in partials:
        partial.unlink(missing_ok=True)
    return len(partials)
