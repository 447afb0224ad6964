"""Which modalities the second pass of a training step keeps, and how well each does by itself.

Training on random subsets makes a student robust to missing sensors; drawing the weak ones more often
is CHARM's soft-min idea (arXiv 2508.03060), in our own form: a subset is drawn with a probability
proportional to exp(-s / 0.1), where s is the running IoU of its best modality, so that a subset of
weak sensors alone is drawn more often than one with a strong sensor.

The running IoU is a module, so that it moves between devices and is saved with the others; a resumed
run continues with the same counts.

Legend: B samples, M modalities, K classes, H W space.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from pipeline.datasets.base import IGNORE_ID

SOFTNESS = 0.1
"""IoU by which a subset must be worse to be drawn e times as often."""
DECAY = 0.98
"""Factor of the counts at each update of a modality: a memory of some 50 batches."""


def draw_subsets(present_BM: NDArray[np.bool_], rng: np.random.Generator) -> NDArray[np.bool_]:
    """For each sample a non-empty proper subset of its modalities, all equally likely.

    A sample with one modality keeps it.
    """
    drawn = present_BM.copy()
    for row in drawn:
        present = np.flatnonzero(row)
        if len(present) > 1:
            # Bit patterns other than none (0) and all (2^n - 1): one number is one proper subset.
            bits = int(rng.integers(1, 2 ** len(present) - 1))
            row[present] = [bool(bits >> n & 1) for n in range(len(present))]
    return drawn


def draw_weak_first(
    present_BM: NDArray[np.bool_], iou_M: NDArray[np.float64], rng: np.random.Generator
) -> NDArray[np.bool_]:
    """The same, but subsets whose best modality has a low IoU (in [0, 1]) are likelier."""
    drawn = present_BM.copy()
    for row in drawn:
        present = np.flatnonzero(row)
        if len(present) > 1:
            subsets_SM = _proper_subsets(len(present))
            best_S = np.where(subsets_SM, iou_M[present], 0.0).max(axis=1)
            chance_S = np.exp(-(best_S - best_S.min()) / SOFTNESS)
            row[present] = subsets_SM[rng.choice(len(chance_S), p=chance_S / chance_S.sum())]
    return drawn


@lru_cache(maxsize=16)
def _proper_subsets(count: int) -> NDArray[np.bool_]:
    """All non-empty proper subsets of `count` modalities, (2^count - 2, count)."""
    bits = np.arange(1, 2**count - 1)[:, None]
    return (bits >> np.arange(count) & 1).astype(bool)


class RunningIou(nn.Module):
    """IoU of each modality by itself, over recent batches."""

    def __init__(self, num_modalities: int, num_classes: int) -> None:
        super().__init__()
        shape = (num_modalities, num_classes)
        self.intersection_MK: Tensor
        self.union_MK: Tensor
        self.register_buffer("intersection_MK", torch.zeros(shape))
        self.register_buffer("union_MK", torch.zeros(shape))

    @torch.no_grad()
    def update(self, modality: int, ids_BHW: Tensor, label_BHW: Tensor) -> None:
        """Count predicted ids against labels (255: ignored) of samples that have the modality."""
        K = self.union_MK.shape[1]
        valid = label_BHW != IGNORE_ID
        label, ids = label_BHW[valid], ids_BHW[valid]
        hits = torch.bincount(label[label == ids], minlength=K)
        both = torch.bincount(label, minlength=K) + torch.bincount(ids, minlength=K)
        self.intersection_MK[modality] *= DECAY
        self.intersection_MK[modality] += hits
        self.union_MK[modality] *= DECAY
        self.union_MK[modality] += both - hits

    def iou(self) -> Tensor:
        """(M,) mean over the classes that occurred; 0 for a modality not seen yet."""
        seen_MK = self.union_MK > 0
        iou_MK = self.intersection_MK / self.union_MK.clamp_min(1e-6)
        return (iou_MK * seen_MK).sum(1) / seen_MK.sum(1).clamp_min(1)

    def weights(self, power: float) -> Tensor:
        """(M,) factors of a modality's rows in a loss: (1 - IoU) ** power, of mean 1."""
        weights = (1 - self.iou()).clamp_min(1e-3) ** power
        return weights / weights.mean()
