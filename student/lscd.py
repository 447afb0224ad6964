"""Language-guided semantic correlation distillation (LSCD) on cached teacher outputs.

Any2Seg publishes neither the losses nor their settings; these forms are ours (the ones that our
ablation measured), and each has its own weight:
- inter: the correlation rows of a sample's modalities, teacher against student;
- language: each modality's correlation with the class prompts, teacher against student;
- intra: the features of a class's pixels against all class prompts, matched to the class's own row;
- dense: cosine of projected stage-4 features with the teacher's patch embeddings (not the paper's).

The first three are KL divergences in nats; the usual factor tau^2 (Hinton et al., 2015) is left to
their weights. The projections to the teacher's width are for training only, no part of the student.

Legend: M modalities, B samples, C channels, H W space, K classes, D teacher width, P patches, g
patches a side. Writes nothing; what can fail: nothing but a shape that does not fit.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from pipeline.config_student import LscdConfig


@dataclass(frozen=True, slots=True)
class TeacherBatch:
    """The teacher's outputs for a batch, joined by key; rows of absent modalities are ignored."""

    view: Tensor
    """(B, 5): where the student's view lies in the centred square of the source picture, which the
    teacher saw: top, left, height, width (shares of its side) and whether it is mirrored."""
    embedding: Tensor | None = None
    """(B, M, D) unit-norm embeddings."""
    patch: Tensor | None = None
    """(B, M, P, D) patch embeddings of a square grid, row by row, over the centred square."""
    taught: Tensor | None = None
    """(B, M) bool: which of these rows are there; None: those of all present modalities."""


def inter_modal_loss(
    student_BMD: Tensor, teacher_BMD: Tensor, present_BM: Tensor, tau: float
) -> Tensor:
    """KL between the modality-correlation rows of teacher and student (inter-modal part; our form).

    Shapes: (B, M, C) and (B, M, D) unit-norm, (B, M) bool. A row holds the modality itself too:
    without it two modalities would have constant rows. Samples with fewer than two modalities
    contribute nothing. Returns the mean over the rows that count, in nats.
    """
    counts_BM = present_BM & (present_BM.sum(1, keepdim=True) > 1)
    absent_B1M = ~present_BM[:, None, :]
    student = (student_BMD @ student_BMD.mT / tau).masked_fill(absent_B1M, -1e4)
    teacher = (teacher_BMD @ teacher_BMD.mT / tau).masked_fill(absent_B1M, -1e4)
    return _mean(_kl_rows(teacher, student), counts_BM)


def language_loss(
    student_BMD: Tensor, teacher_BMD: Tensor, prompts_KD: Tensor, present_BM: Tensor, tau: float
) -> Tensor:
    """KL between the class-prompt rows of teacher and student; all inputs unit-norm. Mean over
    rows, nats."""
    student = student_BMD @ prompts_KD.T / tau
    teacher = teacher_BMD @ prompts_KD.T / tau
    return _mean(_kl_rows(teacher, student), present_BM)


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


def intra_modal_loss(
    projected_MBKD: Tensor, counts_MBK: Tensor, prompts_KD: Tensor, tau: float
) -> Tensor:
    """KL between each class's prompt-prompt row and the row of its pixels' mean feature
    (intra-modal part).

    `projected` is unit-norm, `counts` says which (modality, sample, class) are there. Mean over
    those, nats.
    """
    num_classes = prompts_KD.shape[0]
    rows_NK = projected_MBKD[counts_MBK] @ prompts_KD.T / tau
    class_N = torch.arange(num_classes, device=counts_MBK.device).expand_as(counts_MBK)[counts_MBK]
    wanted_NK = (prompts_KD @ prompts_KD.T / tau)[class_N]
    return _kl_rows(wanted_NK, rows_NK).sum() / max(1, rows_NK.shape[0])


def dense_loss(
    student_MBDHW: Tensor, patch_BMPD: Tensor, view_B5: Tensor, present_BM: Tensor
) -> Tensor:
    """1 - cosine of the student's map with the patch grid resampled to the same view; mean over
    positions.

    The patches keep the view that the teacher saw: a mirrored or cropped student map is compared
    with the patches at the places that it shows. Positions outside the teacher's square count
    nowhere.
    """
    M, B, D, H, W = student_MBDHW.shape
    side = round(patch_BMPD.shape[2] ** 0.5)
    grid_BHW2, inside_BHW = _view_grid(view_B5, H, W)
    maps = patch_BMPD.permute(0, 1, 3, 2).reshape(B, M * D, side, side)
    wanted = functional.grid_sample(
        maps, grid_BHW2.to(maps.dtype), padding_mode="border", align_corners=False
    )
    wanted_MBDHW = wanted.view(B, M, D, H, W).transpose(0, 1)
    cosine_MBHW = functional.cosine_similarity(student_MBDHW, wanted_MBDHW, dim=2)
    return _mean(1 - cosine_MBHW, inside_BHW & present_BM.T[:, :, None, None])


def shows_the_teachers_view(view_B5: Tensor) -> Tensor:
    """(B,) bool: the student's view holds the teacher's whole square and is not mirrored.

    The embedding of a mirrored or cropped picture is not that of the picture, so such a sample takes
    no part in the terms on pooled features.
    """
    top, left, height, width, mirrored = view_B5.unbind(1)
    whole_B = (top <= 0) & (left <= 0) & (top + height >= 1) & (left + width >= 1)
    return whole_B & (mirrored == 0)


def _view_grid(view_B5: Tensor, height: int, width: int) -> tuple[Tensor, Tensor]:
    """Sampling points of a view in grid_sample's [-1, 1], (B, H, W, 2), and which lie in the
    square."""
    top, left, view_height, view_width, mirrored = view_B5.unbind(1)
    y_H = (torch.arange(height, device=view_B5.device) + 0.5) / height
    x_W = (torch.arange(width, device=view_B5.device) + 0.5) / width
    x_BW = torch.where(mirrored[:, None] > 0, 1 - x_W, x_W)
    y_BH = top[:, None] + y_H * view_height[:, None]
    x_BW = left[:, None] + x_BW * view_width[:, None]
    y_BHW = y_BH[:, :, None].expand(-1, -1, width)
    x_BHW = x_BW[:, None, :].expand(-1, height, -1)
    inside_BHW = (y_BHW >= 0) & (y_BHW <= 1) & (x_BHW >= 0) & (x_BHW <= 1)
    return torch.stack([x_BHW, y_BHW], dim=-1) * 2 - 1, inside_BHW


class Lscd(nn.Module):
    """The weighted terms over a batch, with the projections that they need."""

    def __init__(
        self,
        config: LscdConfig,
        channels: Sequence[int],
        prompts_KD: Tensor | None = None,
        width: int | None = None,
    ) -> None:
        """`prompts`: unit-norm class prompts, for language and intra; `width`: D, for language and
        dense."""
        super().__init__()
        self.config = config
        self.prompts_KD: Tensor | None
        self.register_buffer("prompts_KD", prompts_KD, persistent=False)
        if config.language or config.dense:
            self.project_picture = nn.Linear(channels[3], width or 0)
        if config.intra and prompts_KD is not None:
            self.project_class = nn.Linear(channels[2], prompts_KD.shape[1])

    def forward(
        self,
        stages: Sequence[Tensor],
        present_BM: Tensor,
        label_BHW: Tensor,
        teacher: TeacherBatch,
    ) -> dict[str, Tensor]:
        """The terms that have weight, unweighted. `stages`: maps (M, B, C_i, H_i, W_i) of the
        modalities."""
        terms: dict[str, Tensor] = {}
        config = self.config
        taught_BM = present_BM if teacher.taught is None else present_BM & teacher.taught
        same_view_BM = taught_BM & shows_the_teachers_view(teacher.view)[:, None]
        pooled_BMC = stages[3].mean((3, 4)).transpose(0, 1)
        embedding = teacher.embedding
        if config.inter:
            assert embedding is not None
            student = functional.normalize(pooled_BMC, dim=-1)
            terms["inter"] = inter_modal_loss(student, embedding, same_view_BM, config.tau)
        if config.language:
            assert embedding is not None
            assert self.prompts_KD is not None
            student = functional.normalize(self.project_picture(pooled_BMC), dim=-1)
            terms["language"] = language_loss(
                student, embedding, self.prompts_KD, same_view_BM, config.tau
            )
        if config.intra:
            terms["intra"] = self._intra(stages[2], present_BM, label_BHW)
        if config.dense:
            terms["dense"] = self._dense(stages[3], taught_BM, teacher)
        return terms

    def _intra(self, features_MBCHW: Tensor, present_BM: Tensor, label_BHW: Tensor) -> Tensor:
        assert self.prompts_KD is not None
        height, width = features_MBCHW.shape[-2:]
        area_BKL = class_areas(label_BHW, self.prompts_KD.shape[0], height, width)
        counts_MBK = (area_BKL.sum(-1) > 0) & present_BM.T[:, :, None]
        means_MBKC = class_means(features_MBCHW, area_BKL.to(features_MBCHW.dtype))
        projected = functional.normalize(self.project_class(means_MBKC), dim=-1)
        return intra_modal_loss(projected, counts_MBK, self.prompts_KD, self.config.tau)

    def _dense(self, features_MBCHW: Tensor, taught_BM: Tensor, teacher: TeacherBatch) -> Tensor:
        assert teacher.patch is not None
        projected = self.project_picture(features_MBCHW.permute(0, 1, 3, 4, 2))
        student_MBDHW = projected.permute(0, 1, 4, 2, 3)
        return dense_loss(student_MBDHW, teacher.patch, teacher.view, taught_BM)


def _kl_rows(wanted_logits: Tensor, found_logits: Tensor) -> Tensor:
    """KL(softmax(wanted) || softmax(found)) over the last dimension, in nats."""
    wanted = wanted_logits.log_softmax(-1)
    return (wanted.exp() * (wanted - found_logits.log_softmax(-1))).sum(-1)


def _mean(values: Tensor, counts: Tensor) -> Tensor:
    """Mean of the values that count; 0 if none does."""
    counts = counts.expand_as(values)
    return values.masked_fill(~counts, 0).sum() / counts.sum().clamp_min(1)
