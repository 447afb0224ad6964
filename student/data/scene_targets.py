"""Embeddings of the scene descriptions, joined by key: one vector a sample.

Read from the description store that `any2seg describe` filled for the training split. A process
keeps the rows of the shards in use. `MissingTarget` names a sample without one.

Legend: B samples, D teacher width.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipeline.errors import MissingTarget
from pipeline.shards.manifest import ShardInfo
from pipeline.shards.sample_reader import SampleRef
from pipeline.targets.descriptions import SCENE, in_slot
from pipeline.targets.provenance import EMBEDDING
from pipeline.targets.store import TargetStore

KEPT_SHARDS = 8
"""Shards whose rows are in memory at once: two windows of the stream."""


class SceneDescriptions:
    """Embedded scene descriptions by sample key."""

    def __init__(self, store: TargetStore) -> None:
        self.store = store
        self._shards: dict[str, dict[str, NDArray[np.float32]]] = {}

    def rows(self, refs: Sequence[SampleRef]) -> Tensor:
        """(B, D) float32, unit norm. Raises `MissingTarget`."""
        return torch.from_numpy(np.stack([self._row(ref) for ref in refs]))

    def _row(self, ref: SampleRef) -> NDArray[np.float32]:
        if ref.shard.name not in self._shards:
            while len(self._shards) >= KEPT_SHARDS:
                self._shards.pop(next(iter(self._shards)))
            self._shards[ref.shard.name] = self._read(ref.shard)
        row = self._shards[ref.shard.name].get(ref.key)
        if row is None or not np.isfinite(row).all():
            raise MissingTarget(
                f"{ref.shard.name}: sample {ref.key} has no embedded scene description. "
                "Run `any2seg describe CONFIG`, or set student.lscd.scene_column = false."
            )
        return row

    def _read(self, shard: ShardInfo) -> dict[str, NDArray[np.float32]]:
        described = in_slot(shard, SCENE)
        if not self.store.is_committed(described):
            return {}
        rows = self.store.read(described, EMBEDDING).astype(np.float32)
        return dict(zip(shard.keys, rows, strict=True))
