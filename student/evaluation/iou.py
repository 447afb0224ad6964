"""Confusion matrices and intersection over union.

Counts are int64: float32 counts (as in published evaluation code) stop growing at 2^24 pixels. Two
conventions for a class that no label pixel has: strict (it is skipped, our number) and compatible
(it counts as 0, which is what much published code does).

Legend: G groups of samples (conditions), K classes.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Counts = NDArray[np.int64]


def confusion(
    prediction_BHW: Tensor, label_BHW: Tensor, group_B: Tensor, num_groups: int, num_classes: int
) -> Tensor:
    """Pixel counts (G, K, K) int64, rows by label and columns by prediction; ids >= K are
    ignored."""
    valid_BHW = label_BHW < num_classes
    group_BHW = group_B[:, None, None].expand_as(label_BHW)
    cell = (group_BHW * num_classes + label_BHW) * num_classes + prediction_BHW
    counts = torch.bincount(cell[valid_BHW], minlength=num_groups * num_classes**2)
    return counts.view(num_groups, num_classes, num_classes)


def class_iou(confusion_KK: Counts) -> NDArray[np.float64]:
    """TP / (label + prediction - TP) of each class, as fractions; NaN for a class without label
    pixels."""
    correct = np.diagonal(confusion_KK).astype(np.float64)
    support = confusion_KK.sum(1)
    union = support + confusion_KK.sum(0) - correct
    iou_K = np.full(len(union), np.nan)
    np.divide(correct, union, out=iou_K, where=support > 0)
    return iou_K


def miou(iou_K: NDArray[np.float64]) -> float:
    """Mean over the classes that have label pixels (strict); NaN if none has."""
    present = iou_K[~np.isnan(iou_K)]
    return float(present.mean()) if present.size else float("nan")


def miou_absent_zero(iou_K: NDArray[np.float64]) -> float:
    """Mean over all classes, an absent one counting as 0 (compatible with published code)."""
    return float(np.nan_to_num(iou_K).mean())


def majority_miou(support_K: Counts) -> float:
    """What predicting the most frequent class everywhere scores (strict): the floor of any
    model."""
    present = int((support_K > 0).sum())
    return float(support_K.max() / support_K.sum() / present) if present else float("nan")
