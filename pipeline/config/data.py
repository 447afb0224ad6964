"""`[modalities]`, `[store]` and `[prepare]` of the configuration.

Checks across tables are in `pipeline.config.config`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import (
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
)

from pipeline.core.frozen_model import Frozen
from pipeline.modalities import TowerName


class ModalityConfig(Frozen):
    """One sensor of the data set."""

    kind: str = ""
    """Row of the modality registry (`any2seg kinds` lists them); empty: the modality's own name."""
    tower: TowerName | None = None
    """LanguageBind tower that embeds it; default: the registry's."""
    max_value: PositiveFloat | None = None
    """Stored value that the student sees as 1.0 (for `depth` and `lidar`: millimetres)."""


class StoreConfig(Frozen):
    """How shards and targets are laid out."""

    shard_size: PositiveInt = 256
    """Samples per shard and rows per chunk; one writer owns a whole chunk."""
    dtype: Literal["float16", "float32"] = "float16"
    """Stored type of the embeddings."""
    cache_gb: NonNegativeFloat = 20.0
    """Most gigabytes of local copies (shards, embeddings) of a workspace in an object store."""
    cache_dir: Path | None = None
    """Folder of those copies; default: the platform's cache folder."""


class PrepareConfig(Frozen):
    """Reading the source data."""

    workers: NonNegativeInt = 0
    """Processes that decode and encode samples; 0: one per processor."""
    max_refused: float = Field(default=0.05, ge=0.0, le=1.0)
    """Share of a split's samples that may be quarantined before the stage fails."""
