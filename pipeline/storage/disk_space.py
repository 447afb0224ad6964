"""Free space on the workspace's disk, and whether a run fits.

An object store's free space is unknown; nothing is checked there.
"""

from __future__ import annotations

import os
from pathlib import Path

from pipeline.core.units_text import as_size
from pipeline.errors import NotEnoughSpace
from pipeline.storage.files import AnyPath

SPARE_SHARE = 0.05
"""Extra share that must be free: records, metadata, the temporary copy of the file being written."""
SPARE_BYTES = 1 << 20


def free_bytes(path: AnyPath) -> int | None:
    """Bytes that can still be written where `path` is or will be; None for an object store."""
    if not isinstance(path, Path):
        return None
    existing = next(folder for folder in (path, *path.parents) if folder.exists())
    status = os.statvfs(existing)
    # Not `f_bfree`, which includes the blocks reserved for root.
    return status.f_bavail * status.f_frsize


def required_bytes(num_bytes: int) -> int:
    """Bytes that must be free for writing `num_bytes`, with a margin."""
    return num_bytes + round(num_bytes * SPARE_SHARE) + SPARE_BYTES if num_bytes else 0


def require_space(path: AnyPath, num_bytes: int, what: str) -> None:
    """Raise `NotEnoughSpace` unless `num_bytes` of `what` fit where `path` is or will be."""
    free, needed = free_bytes(path), required_bytes(num_bytes)
    if free is not None and free < needed:
        raise NotEnoughSpace(
            f"{path}: {what}: expected {as_size(needed)} free ({as_size(num_bytes)} and a margin), "
            f"found {as_size(free)}. Make room, or set `workspace` to another disk or an object "
            "store; `any2seg plan CONFIG` shows what needs how much."
        )
