"""The distillation terms as functions of features: correlation rows and the distances between them.

A row holds one vector's cosines to a set of others: to the other modalities of its scene, or to the
class prompts. Student and teacher need not share a space, only the columns of a row. Distances
between a teacher's row t and a student's s, over its columns:

    kl      KL(softmax(t / tau) || softmax(s / tau)), nats    (distillation; Hinton et al., 2015)
    mse     mean of (t - s)^2                                  (Tung and Mori, 2019)

The usual factor tau^2 is left to the terms' weights. A term is the mean of its rows, weighted by
modality if weights are given. Nothing depends on how many modalities, classes or pixels there are.

Legend: M modalities, B samples, C channels, H W space, L = H W cells, K classes, D teacher width.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

Distance = Literal["kl", "mse"]
_MASKED = -1e4
"""Logit of a column that is masked: finite, so that a row without columns has no NaN gradient."""


def inter_modal_loss(
    student_BMC: Tensor,
    teacher_BMD: Tensor,
    present_BM: Tensor,
    tau: float,
    distance: Distance = "kl",
    *,
    scene_BM: tuple[Tensor, Tensor] | None = None,
    weights_M: Tensor | None = None,
) -> Tensor:
    """Distance of the rows of cosines between a sample's modalities (inter-modal part; our form).

    Shapes: (B, M, C) and (B, M, D) unit-norm, (B, M) bool. A row includes the modality itself:
    without it the rows of two modalities would be constant. `scene`: the student's and the
    teacher's cosines to the scene description, one more column. Rows of a single column are left
    out.
    """
    student, teacher = student_BMC @ student_BMC.mT, teacher_BMD @ teacher_BMD.mT
    columns = present_BM[:, None, :].expand_as(student)
    valid_BM = present_BM & (present_BM.sum(1, keepdim=True) > 1)
    if scene_BM is not None:
        student = torch.cat([student, scene_BM[0][..., None]], dim=-1)
        teacher = torch.cat([teacher, scene_BM[1][..., None]], dim=-1)
        columns = functional.pad(columns, (0, 1), value=True)
        # With the scene's column, a modality alone has two.
        valid_BM = present_BM
    loss_BM = row_distance(student, teacher, tau, distance, columns)
    return masked_mean(loss_BM, valid_BM, weights_M)


def intra_modal_loss(
    student_MBKD: Tensor,
    valid_MBK: Tensor,
    prompts_KD: Tensor,
    tau: float,
    distance: Distance = "kl",
    *,
    weights_M: Tensor | None = None,
) -> Tensor:
    """Distance between each class's prompt-prompt row and the row of its pixels' mean feature
    (intra-modal part).

    `student` is unit-norm and projected to D, `valid` marks the (modality, sample, class) that have
    pixels.
    """
    teacher_KK = prompts_KD @ prompts_KD.T
    student_MBKK = student_MBKD @ prompts_KD.T
    loss_MBK = row_distance(student_MBKK, teacher_KK.expand_as(student_MBKK), tau, distance)
    return masked_mean(loss_MBK.movedim(0, -1), valid_MBK.movedim(0, -1), weights_M)


def dense_loss(
    student_MBHWD: Tensor,
    teacher_MBHWD: Tensor,
    valid_MBHW: Tensor,
    distance: Literal["cosine", "kl"] = "cosine",
    *,
    prompts_KD: Tensor | None = None,
    tau: float = 1.0,
    weights_M: Tensor | None = None,
) -> Tensor:
    """Distance of the student's map from the teacher's patch embeddings at the same positions.

    `cosine`: 1 - cosine of the two vectors; `kl`: KL between their rows of cosines to the class
    prompts.
    """
    if distance == "kl":
        assert prompts_KD is not None
        teacher = functional.normalize(teacher_MBHWD, dim=-1) @ prompts_KD.T
        student = functional.normalize(student_MBHWD, dim=-1) @ prompts_KD.T
        loss = row_distance(student, teacher, tau, "kl")
    else:
        loss = 1 - functional.cosine_similarity(student_MBHWD, teacher_MBHWD, dim=-1)
    return masked_mean(loss.movedim(0, -1), valid_MBHW.movedim(0, -1), weights_M)


def row_distance(
    student: Tensor,
    teacher: Tensor,
    tau: float,
    distance: Distance,
    columns: Tensor | None = None,
) -> Tensor:
    """Distance over the last dimension, of the columns that are marked (default: all)."""
    if distance == "kl":
        student, teacher = student / tau, teacher / tau
        if columns is not None:
            student = student.masked_fill(~columns, _MASKED)
            teacher = teacher.masked_fill(~columns, _MASKED)
        log_teacher = teacher.log_softmax(-1)
        return (log_teacher.exp() * (log_teacher - student.log_softmax(-1))).sum(-1)
    difference = teacher - student
    if columns is None:
        return difference.square().mean(-1)
    squares = difference.masked_fill(~columns, 0).square()
    return squares.sum(-1) / columns.sum(-1).clamp_min(1)


def masked_mean(values: Tensor, valid: Tensor, weights_M: Tensor | None = None) -> Tensor:
    """Mean of the valid values, weighted along the last dimension (M); 0 if none is valid."""
    valid = valid.expand_as(values)
    # Filled, not multiplied: what stands in an invalid place may be NaN.
    values = values.masked_fill(~valid, 0)
    if weights_M is None:
        return values.sum() / valid.sum().clamp_min(1)
    weights = valid * weights_M.to(values.dtype)
    return (values * weights).sum() / weights.sum().clamp_min(torch.finfo(values.dtype).tiny)


def class_means(features_MBCHW: Tensor, area_BKL: Tensor) -> Tensor:
    """Mean feature of each class's pixels: (M, B, K, C); 0 for a class without pixels.

    `area_BKL` counts a class's pixels in each of the L = H W cells (see `class_areas`).
    """
    features_MBLC = features_MBCHW.flatten(3).transpose(2, 3)
    return (area_BKL @ features_MBLC) / area_BKL.sum(-1, keepdim=True).clamp_min(1)


def class_areas(label_BHW: Tensor, num_classes: int, height: int, width: int) -> Tensor:
    """Pixels of each class in each cell of a height x width grid: (B, K, height * width) float.

    A pixel belongs to the cell that nearest-neighbour upsampling would give it; ignored ids count
    nowhere.
    """
    B, H, W = label_BHW.shape
    device = label_BHW.device
    row_H = torch.arange(H, device=device) * height // H
    column_W = torch.arange(W, device=device) * width // W
    sample_B = torch.arange(B, device=device)
    cell_BHW = (sample_B[:, None, None] * height + row_H[:, None]) * width + column_W
    # Ignored ids fall into one bin beyond the classes, which is cut off below.
    id_BHW = label_BHW.clamp_max(num_classes)
    counts = torch.bincount(
        (cell_BHW * (num_classes + 1) + id_BHW).flatten(),
        minlength=B * height * width * (num_classes + 1),
    )
    grid_BLK = counts.view(B, height * width, num_classes + 1)[..., :num_classes]
    return grid_BLK.transpose(1, 2).float()
