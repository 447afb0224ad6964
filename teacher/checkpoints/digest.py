"""The digest of weights files, computed once and cached. No torch, except to look into a `.bin`.

It is cached in `<cache>/weights.json` by the file's path, size, mtime and inode; without that cache the
weights are read once more.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pipeline.errors import CheckpointError
from pipeline.formats.safetensors_header import header_problem
from pipeline.storage.files import read_json, sha256_file, write_json


def weights_digest(files: Sequence[Path], cache: Path) -> str:
    """Hex sha256 of the files of weights. Raises `CheckpointError` as `file_digest` does.

    One file: that of its bytes. Shards: that of the lines which `sha256sum SHARDS` prints for their
    names; how tensors are spread over shards is part of it.
    """
    digests = {path.name: file_digest(path, cache) for path in files}
    if len(digests) == 1:
        return next(iter(digests.values()))
    lines = "".join(f"{digest}  {name}\n" for name, digest in sorted(digests.items()))
    return hashlib.sha256(lines.encode()).hexdigest()


def file_digest(path: Path, cache: Path) -> str:
    """Hex sha256 of one file, cached in `cache`. `CheckpointError` if it cannot be read or is cut short."""
    try:
        stat = path.stat()
    except OSError as error:
        raise CheckpointError(
            f"{path}: expected a weights file, found: {error}. Fetch the checkpoint again."
        ) from error
    key = str(path.resolve())
    identity = [stat.st_size, stat.st_mtime_ns, stat.st_ino]
    known = _known(cache)
    entry = known.get(key)
    if isinstance(entry, dict) and entry.get("identity") == identity:
        return str(entry["sha256"])
    # Before data is prepared, not when the tensors are read.
    if path.suffix == ".bin":
        # Only loading shows what a pickle holds; once, since the digest is cached. It imports torch.
        from pipeline.formats.weight_files import read_tensors

        read_tensors(path)
    problem = header_problem(path) if path.suffix == ".safetensors" else None
    if problem:
        raise CheckpointError(
            f"{path}: expected a checkpoint of tensors only, found {problem}. Fetch it again from a source "
            "you trust."
        )
    digest = sha256_file(path)
    write_json(_cache_file(cache), {**known, key: {"identity": identity, "sha256": digest}})
    return digest


def _cache_file(cache: Path) -> Path:
    return cache / "weights.json"


def _known(cache: Path) -> dict[str, Any]:
    try:
        known = read_json(_cache_file(cache))
    except (OSError, json.JSONDecodeError):
        return {}
    return known if isinstance(known, dict) else {}
