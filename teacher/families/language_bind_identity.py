"""What LanguageBind's embeddings depend on, for fingerprints. No torch, no transformers.

Batch size and device are left out: they change the last bits of an embedding, not its meaning.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pipeline.storage.files import sha256_file
from teacher.checkpoints.digest import weights_digest
from teacher.checkpoints.locate import TowerFiles
from teacher.preprocessing.config import Preprocessing

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
