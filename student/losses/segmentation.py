"""Segmentation losses: class weights, cross-entropy, hard pixels, consistency.

- class weights, frequency ** power: a pole must not drown in road (Eigen and Fergus, 2015).
- hard pixels only (OHEM): easy ones stop outvoting the rest (Shrivastava et al., 2016; in the recipe
  of DELIVER's authors with threshold 0.7 and at least 1/16 of the pixels).
- consistency: the prediction from all sensors is the target of a subset's (Hinton et al., 2015; of an
  averaged student: Tarvainen and Valpola, 2017).

Legend: B samples, K classes, H W space.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from pipeline.datasets.base import IGNORE_ID


def class_weights(pixels_K: NDArray[np.int64], power: float) -> Tensor:
    """frequency ** power, normalised to mean 1 over the training pixels: (K,) float32.

    A class without a pixel gets weight 0: it is no pixel's label.
    """
    frequency = pixels_K / max(1, int(pixels_K.sum()))
    weights = np.zeros(len(pixels_K))
    occurs = frequency > 0
    weights[occurs] = frequency[occurs] ** power
    mean = float((weights * frequency).sum())
    return torch.tensor(weights / (mean or 1.0), dtype=torch.float32)


def segmentation_loss(logits_BKHW: Tensor, label_BHW: Tensor, weights_K: Tensor) -> Tensor:
    """Cross-entropy, averaged with the class weights of the labels; 0 if every pixel is ignored."""
    total = functional.cross_entropy(
        logits_BKHW, label_BHW, weight=weights_K, ignore_index=IGNORE_ID, reduction="sum"
    )
    counts = torch.bincount(label_BHW.flatten(), minlength=IGNORE_ID + 1)[: len(weights_K)]
    return total / (counts * weights_K).sum().clamp_min(torch.finfo(torch.float32).tiny)


def hard_pixel_loss(
    logits_BKHW: Tensor, label_BHW: Tensor, weights_K: Tensor, threshold: float, keep: float
) -> Tensor:
    """The same over hard pixels: those whose class gets less than `threshold` probability, but at
    least the share `keep` of the labelled pixels, the hardest first."""
    valid = label_BHW != IGNORE_ID
    nats = functional.cross_entropy(
        logits_BKHW, label_BHW, ignore_index=IGNORE_ID, reduction="none"
    )
    with torch.no_grad():
        num_kept = math.ceil(keep * int(valid.sum()))
        # Less probability than the threshold is more cross-entropy than -log(threshold).
        cutoff = torch.tensor(-math.log(threshold), dtype=nats.dtype, device=nats.device)
        if num_kept:
            cutoff = torch.minimum(cutoff, nats[valid].topk(num_kept, sorted=False).values.min())
        weight = weights_K[label_BHW.masked_fill(~valid, 0)] * (valid & (nats >= cutoff))
    return (nats * weight).sum() / weight.sum().clamp_min(torch.finfo(torch.float32).tiny)


def consistency_loss(student_BKHW: Tensor, teacher_BKHW: Tensor) -> Tensor:
    """KL(softmax(teacher) || softmax(student)) of logits, nats, mean over all positions.

    No gradient flows to `teacher`. Unlabelled positions count: the teacher predicts them too.
    """
    teacher = teacher_BKHW.detach().log_softmax(1)
    student = student_BKHW.log_softmax(1)
    return (teacher.exp() * (teacher - student)).sum(1).mean()
