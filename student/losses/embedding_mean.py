"""The mean teacher embedding of each modality over the training split.

Embeddings of one tower share a large common part (the modality gap; Liang et al., 2022), beside
which what a scene changes is small. Subtracting the mean leaves the part that says something.
Computed once when a run starts, in shard order and float64, from the very answers that training
joins; the run's checkpoint keeps it. Writes nothing; what the source raises passes through.

Legend: M modalities, D teacher width.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from pipeline.shards.manifest import ShardInfo
from pipeline.targets.provenance import EMBEDDING
from pipeline.targets.reader import TeacherSource


def mean_embeddings(
    source: TeacherSource, shards: Sequence[ShardInfo], modalities: Sequence[str]
) -> Tensor:
    """(M, D) float32; 0 for a modality without a row. All views of a sample count."""
    totals = np.zeros((len(modalities), source.dim))
    counts = np.zeros(len(modalities))
    for shard in shards:
        targets = source.targets(shard)
        for m, name in enumerate(modalities):
            if EMBEDDING not in targets.get(name, {}):
                continue
            rows = np.asarray(targets[name][EMBEDDING][:], np.float64).reshape(-1, source.dim)
            finite = np.isfinite(rows).all(axis=1)
            totals[m] += rows[finite].sum(axis=0)
            counts[m] += finite.sum()
    return torch.from_numpy(totals / np.maximum(counts, 1)[:, None]).float()
