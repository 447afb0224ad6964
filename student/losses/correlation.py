"""The distillation terms as functions of features: correlation rows and the distances between them.

A row is what one vector's cosines to a set of others look like: to the other modalities of its
scene, to every other picture of the batch, to the class prompts. Student and teacher never have to
share a space, only rows. Distances between a teacher's row t and a student's s, over its columns:

    kl      KL(softmax(t / tau) || softmax(s / tau)), nats    (distillation; Hinton et al., 2015)
    mse     mean of (t - s)^2                                  (Tung and Mori, 2019)
    cosine  1 - cos(t, s)

The usual factor tau^2 is left to the terms' weights. A term is the mean of its rows, weighted by
modality if weights are given. Nothing depends on how many modalities, classes or pixels there are.

Legend: M modalities, B samples, C channels, H W space, L = H W cells, K classes, D teacher width,
P patches. Writes nothing, raises nothing.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

Distance = Literal["kl", "mse", "cosine"]
_LEFT_OUT = -1e4
"""Logit of a column that takes no part."""


def inter_modal_loss(
    student_BMD: Tensor,
    teacher_BMD: Tensor,
    present_BM: Tensor,
    tau: float,
    distance: Distance = "kl",
    *,
    scene_BM: tuple[Tensor, Tensor] | None = None,
    weights_M: Tensor | None = None,
) -> Tensor:
    """Distance of the rows of cosines between a sample's modalities (inter-modal part; our form).

    Shapes: (B, M, C) and (B, M, D) unit-norm, (B, M) bool. A row holds the modality itself too:
    without it two modalities would have constant rows. `scene`: the student's and the teacher's
    cosines to the scene description, one column more. Rows of a single column do not count.
    """
    student, teacher = student_BMD @ student_BMD.mT, teacher_BMD @ teacher_BMD.mT
    columns = present_BM[:, None, :].expand_as(student)
    counts_BM = present_BM & (present_BM.sum(1, keepdim=True) > 1)
    if scene_BM is not None:
        student = torch.cat([student, scene_BM[0][..., None]], dim=-1)
        teacher = torch.cat([teacher, scene_BM[1][..., None]], dim=-1)
        columns = functional.pad(columns, (0, 1), value=True)
        counts_BM = present_BM
    rows_BM = row_distance(teacher, student, tau, distance, columns)
    return mean_of(rows_BM, counts_BM, weights_M)


def cross_scene_loss(
    student_BMD: Tensor,
    teacher_BMD: Tensor,
    present_BM: Tensor,
    tau: float,
    distance: Distance = "kl",
    *,
    weights_M: Tensor | None = None,
) -> Tensor:
    """The same over a batch: each (sample, modality) against every other of the batch.

    Only between scenes do correlations vary much; within one they are nearly the same everywhere.
    A row leaves itself out, since both sides are 1 there; rows of fewer than two columns do not
    count. The matrix has (B M)^2 entries.
    """
    B, M, _ = student_BMD.shape
    present_N = present_BM.flatten()
    columns_NN = present_N & ~torch.eye(B * M, dtype=torch.bool, device=present_N.device)
    student, teacher = student_BMD.flatten(0, 1), teacher_BMD.flatten(0, 1)
    rows_N = row_distance(teacher @ teacher.T, student @ student.T, tau, distance, columns_NN)
    counts_N = present_N & (columns_NN.sum(1) > 1)
    return mean_of(rows_N.view(B, M), counts_N.view(B, M), weights_M)


def language_loss(
    student_BMD: Tensor,
    teacher_BMD: Tensor,
    prompts_KD: Tensor,
    present_BM: Tensor,
    tau: float,
    distance: Distance = "kl",
    *,
    weights_M: Tensor | None = None,
) -> Tensor:
    """Distance of the rows of cosines to the class prompts; all inputs unit-norm."""
    rows_BM = row_distance(teacher_BMD @ prompts_KD.T, student_BMD @ prompts_KD.T, tau, distance)
    return mean_of(rows_BM, present_BM, weights_M)


def intra_modal_loss(
    projected_MBKD: Tensor,
    counts_MBK: Tensor,
    prompts_KD: Tensor,
    tau: float,
    distance: Distance = "kl",
    *,
    weights_M: Tensor | None = None,
) -> Tensor:
    """Distance between each class's prompt-prompt row and the row of its pixels' mean feature
    (intra-modal part).

    `projected` is unit-norm, `counts` says which (modality, sample, class) are there.
    """
    wanted_KK = prompts_KD @ prompts_KD.T
    found_MBKK = projected_MBKD @ prompts_KD.T
    rows_MBK = row_distance(wanted_KK.expand_as(found_MBKK), found_MBKK, tau, distance)
    return mean_of(rows_MBK.movedim(0, -1), counts_MBK.movedim(0, -1), weights_M)


def dense_loss(
    student_MBHWD: Tensor,
    wanted_MBHWD: Tensor,
    counts_MBHW: Tensor,
    distance: Distance = "cosine",
    *,
    prompts_KD: Tensor | None = None,
    tau: float = 1.0,
    weights_M: Tensor | None = None,
) -> Tensor:
    """Distance of the student's map from the teacher's patch embeddings at the same places.

    `cosine` compares directions, `mse` the vectors themselves (mean over D; hints, Romero et al.,
    2015), `kl` their rows of cosines to the class prompts.
    """
    if distance == "kl":
        assert prompts_KD is not None
        wanted = functional.normalize(wanted_MBHWD, dim=-1) @ prompts_KD.T
        found = functional.normalize(student_MBHWD, dim=-1) @ prompts_KD.T
        rows = row_distance(wanted, found, tau, "kl")
    else:
        rows = row_distance(wanted_MBHWD, student_MBHWD, tau, distance)
    return mean_of(rows.movedim(0, -1), counts_MBHW.movedim(0, -1), weights_M)


def row_distance(
    wanted: Tensor, found: Tensor, tau: float, distance: Distance, columns: Tensor | None = None
) -> Tensor:
    """Distance over the last dimension, of the columns that are marked (default: all)."""
    if distance == "kl":
        wanted, found = wanted / tau, found / tau
        if columns is not None:
            wanted = wanted.masked_fill(~columns, _LEFT_OUT)
            found = found.masked_fill(~columns, _LEFT_OUT)
        log_wanted = wanted.log_softmax(-1)
        return (log_wanted.exp() * (log_wanted - found.log_softmax(-1))).sum(-1)
    if columns is not None:
        wanted, found = wanted.masked_fill(~columns, 0), found.masked_fill(~columns, 0)
    if distance == "cosine":
        return 1 - functional.cosine_similarity(found, wanted, dim=-1)
    squares = (wanted - found).square()
    if columns is None:
        return squares.mean(-1)
    return squares.sum(-1) / columns.sum(-1).clamp_min(1)


def mean_of(values: Tensor, counts: Tensor, weights_M: Tensor | None = None) -> Tensor:
    """Mean of the values that count, weighted along the last dimension; 0 if none does."""
    counts = counts.expand_as(values)
    values = values.masked_fill(~counts, 0)
    if weights_M is None:
        return values.sum() / counts.sum().clamp_min(1)
    weighted = counts * weights_M.to(values.dtype)
    return (values * weighted).sum() / weighted.sum().clamp_min(torch.finfo(values.dtype).tiny)


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
    id_BHW = label_BHW.clamp_max(num_classes)
    counts = torch.bincount(
        (cell_BHW * (num_classes + 1) + id_BHW).flatten(),
        minlength=B * height * width * (num_classes + 1),
    )
    grid_BLK = counts.view(B, height * width, num_classes + 1)[..., :num_classes]
    return grid_BLK.transpose(1, 2).float()
