"""Class ids that a student predicts from any subset of the modalities, whole or window by window.

The expensive half, the backbone, runs once over a set of readings (`run_backbone`); any number of
subsets is then fused, decoded and brought to the size of the labels (`predict_ids`). Writes nothing,
raises nothing.

Legend: B samples, M modalities, S subsets, K classes, H W space.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from student.evaluation.score_tables import Subset
from student.evaluation.sliding_window import Place, merged
from student.model.fusion import StageFeatures
from student.model.student import Student

Parts = Sequence[tuple[Place, StageFeatures]]
"""The windows of a picture and their features."""


def run_backbone(
    model: Student, readings_MB3HW: Tensor, present_BM: Tensor, places: Sequence[Place]
) -> Parts:
    """Features of normalised readings in every window."""
    return [(place, model.features_of(readings_MB3HW[..., *place], present_BM)) for place in places]


def predict_ids(model: Student, parts: Parts, present_BM: Tensor, size: Sequence[int]) -> Tensor:
    """Ids (B, H, W) from the present modalities, at full size; overlapping windows are averaged."""
    height, width = size
    logits = (
        (place, _at_size(model.logits(features, present_BM), place)) for place, features in parts
    )
    # max is several times faster than argmax on a CPU and gives the same ids.
    return merged(logits, height, width).max(dim=1).indices


def _at_size(logits: Tensor, place: Place) -> Tensor:
    size = [span.stop - span.start for span in place]
    return interpolate(logits, size=size, mode="bilinear")


def predict_subsets(
    model: Student,
    parts: Parts,
    present_BM: Tensor,
    subsets: Sequence[Subset],
    size: Sequence[int],
) -> list[tuple[Tensor, Tensor]]:
    """For each subset the ids (B, H, W) and which samples have a modality of it (B,)."""
    found = []
    for subset in subsets:
        there_BM = present_BM & members(model, subset, present_BM)
        found.append((predict_ids(model, parts, there_BM, size), there_BM.any(dim=1)))
    return found


def members(model: Student, subset: Subset, like: Tensor) -> Tensor:
    """(M,) bool: which modalities of the student are in the subset."""
    return torch.tensor([name in subset for name in model.modalities], device=like.device)
