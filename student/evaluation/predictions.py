"""Class ids that a student predicts from any subset of the modalities, whole or window by window.

The expensive half, the backbone, runs once over a batch of inputs (`run_backbone`); any number of
subsets is then fused, decoded and upsampled to the size of the labels (`predict_ids`).

Legend: B samples, M modalities, S subsets, K classes, H W space.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from student.evaluation.score_tables import Subset
from student.evaluation.sliding_window import WindowSlice, merged
from student.model.fusion import StageFeatures
from student.model.student import Student

WindowFeatures = Sequence[tuple[WindowSlice, StageFeatures]]
"""The windows of an image and their features."""


def run_backbone(
    model: Student, inputs_MB3HW: Tensor, present_BM: Tensor, windows: Sequence[WindowSlice]
) -> WindowFeatures:
    """Features of normalised inputs in every window."""
    return [(w, model.features_of(inputs_MB3HW[..., *w], present_BM)) for w in windows]


def predict_ids(
    model: Student, windows: WindowFeatures, present_BM: Tensor, size: Sequence[int]
) -> Tensor:
    """Ids (B, H, W) from the present modalities, at full size; overlapping windows are averaged."""
    height, width = size
    logits = (
        (window, _at_window_size(model.logits(features, present_BM), window))
        for window, features in windows
    )
    # max is several times faster than argmax on a CPU and gives the same ids.
    return merged(logits, height, width).max(dim=1).indices


def _at_window_size(logits: Tensor, window: WindowSlice) -> Tensor:
    size = [axis.stop - axis.start for axis in window]
    return interpolate(logits, size=size, mode="bilinear")


def predict_subsets(
    model: Student,
    windows: WindowFeatures,
    present_BM: Tensor,
    subsets: Sequence[Subset],
    size: Sequence[int],
) -> list[tuple[Tensor, Tensor]]:
    """For each subset the ids (B, H, W) and which samples have a modality of it (B,)."""
    predictions = []
    for subset in subsets:
        shown_BM = present_BM & members(model, subset, present_BM)
        predictions.append((predict_ids(model, windows, shown_BM, size), shown_BM.any(dim=1)))
    return predictions


def members(model: Student, subset: Subset, like: Tensor) -> Tensor:
    """(M,) bool: which modalities of the student are in the subset."""
    return torch.tensor([name in subset for name in model.modalities], device=like.device)
