"""The segmentation loss and its class weights.

Writes nothing, raises nothing. Legend: B samples, K classes, H W space.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from pipeline.datasets.base import IGNORE_ID


def class_weights(pixels_K: NDArray[np.int64], power: float) -> Tensor:
    """frequency ** power, normalised to mean 1 over the training pixels: (K,) float32.

    A class without a pixel weighs 0: it can be no pixel's label.
    """
    frequency = pixels_K / max(1, int(pixels_K.sum()))
    weights = np.zeros(len(pixels_K))
    there = frequency > 0
    weights[there] = frequency[there] ** power
    mean = float((weights * frequency).sum())
    return torch.tensor(weights / (mean or 1.0), dtype=torch.float32)


def segmentation_loss(logits_BKHW: Tensor, label_BHW: Tensor, weights_K: Tensor) -> Tensor:
    """Cross-entropy, averaged with the class weights of the labels; 0 if every pixel is ignored."""
    total = functional.cross_entropy(
        logits_BKHW, label_BHW, weight=weights_K, ignore_index=IGNORE_ID, reduction="sum"
    )
    counts = torch.bincount(label_BHW.flatten(), minlength=IGNORE_ID + 1)[: len(weights_K)]
    return total / (counts * weights_K).sum().clamp_min(torch.finfo(torch.float32).tiny)
