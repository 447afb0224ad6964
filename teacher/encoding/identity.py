"""What cached embeddings and prompts depend on, for fingerprints. No torch, no transformers.

The digest of a weights file is computed once and cached in `<cache>/weights.json` by the file's
path, size, mtime and inode; without that cache the weights are read once more.

Batch size and device are left out: they change the last bits of an embedding, not its meaning.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.errors import CheckpointError
from pipeline.storage.files import read_json, sha256_file, write_json
from teacher.checkpoints.locate import TowerFiles
from teacher.preprocessing.config import Preprocessing

if TYPE_CHECKING:
    from teacher.contract import TeacherText

FORWARD_VERSION = 1
"""Increment it when the same weights and pixel values start to give other embeddings."""

_VISION_FIELDS = (
    "num_attention_heads",
    "patch_size",
    "hidden_act",
    "layer_norm_eps",
    "lora_alpha",
)
_TEXT_FIELDS = ("num_attention_heads", "max_position_embeddings", "hidden_act", "layer_norm_eps")


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
    """Hex sha256 of one file, cached in `cache`. `CheckpointError` if it cannot be read."""
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
    digest = sha256_file(path)
    write_json(_cache_file(cache), {**known, key: {"identity": identity, "sha256": digest}})
    return digest


def tower_identity(
    files: TowerFiles, preprocessing: Preprocessing, *, compute_dtype: str, cache: Path
) -> dict[str, Any]:
    """Everything about the tower that an embedding depends on, JSON-ready.

    The target store adds the modality's stored form, the outputs and their stored dtype.
    """
    return {
        "forward": FORWARD_VERSION,
        "weights": weights_digest(files.weights, cache),
        "architecture": {
            **{field: files.config.vision[field] for field in _VISION_FIELDS},
            "grid": list(files.config.grid),
            "projection_dim": files.config.projection_dim,
        },
        "preprocessing": preprocessing.identity(),
        "compute_dtype": compute_dtype,
    }


def text_identity(files: TowerFiles, *, compute_dtype: str, cache: Path) -> dict[str, Any]:
    """Everything about the text tower that an embedded text depends on, JSON-ready."""
    return {
        "forward": FORWARD_VERSION,
        "weights": weights_digest(files.weights, cache),
        "tokenizer": [sha256_file(path) for path in files.tokenizer_files()],
        "architecture": {
            **{field: files.config.text[field] for field in _TEXT_FIELDS},
            "projection_dim": files.config.projection_dim,
        },
        "compute_dtype": compute_dtype,
    }


def prompt_identity(
    text: TeacherText,
    classes: Sequence[str],
    templates: Sequence[str],
    *,
    compute_dtype: str,
    cache: Path,
) -> dict[str, Any]:
    """Everything that the embedded class prompts depend on, JSON-ready."""
    return {
        **text.identity(compute_dtype=compute_dtype, cache=cache),
        "classes": list(classes),
        "templates": list(templates),
    }


def _cache_file(cache: Path) -> Path:
    return cache / "weights.json"


def _known(cache: Path) -> dict[str, Any]:
    try:
        known = read_json(_cache_file(cache))
    except (OSError, json.JSONDecodeError):
        return {}
    return known if isinstance(known, dict) else {}
