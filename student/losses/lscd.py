"""Language-guided semantic correlation distillation (LSCD): the terms over a batch.

Any2Seg publishes neither the losses nor their settings; these forms are ours, and each has its own
weight, temperature, distance and feature level:
- inter: the correlation rows of a sample's modalities, or of the whole batch, teacher against
  student;
- language: each modality's correlation with the class prompts, teacher against student;
- intra: the features of a class's pixels against all class prompts, matched to the class's own row;
- dense: projected features against the teacher's patch embeddings (not the paper's).

A term reads one or several backbone stages, before fusion (every modality by itself) or after (one
fused map, against the modalities' mean embedding). The projections to the teacher's width are for
training only, no part of the student.

Legend: M modalities, B samples, C channels, H W space, K classes, D teacher width, P patches.
Writes nothing; what can fail: nothing but a shape that does not fit.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from pipeline.config.student import LscdConfig, TermForm
from student.losses.correlation import (
    class_areas,
    class_means,
    cross_scene_loss,
    dense_loss,
    inter_modal_loss,
    intra_modal_loss,
    language_loss,
)
from student.losses.patch_grid import resampled_patches, shows_the_teachers_view

TERMS = ("inter", "language", "intra", "dense")


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
    scene: Tensor | None = None
    """(B, D) unit-norm embeddings of the scene descriptions."""


@dataclass(frozen=True, slots=True)
class Level:
    """What a term compares at one feature level; fused, there is one map in the modalities' place."""

    stages: Sequence[Tensor]
    """(M, B, C_i, H_i, W_i)"""
    present: Tensor
    """(B, M) bool: there are features."""
    taught: Tensor
    """(B, M) bool: there are features and teacher outputs."""
    same_view: Tensor
    """(B, M) bool: taught, and of the whole view that the teacher saw."""
    embedding: Tensor | None
    patch: Tensor | None


class Lscd(nn.Module):
    """The weighted terms over a batch, with the projections that they need."""

    def __init__(
        self,
        config: LscdConfig,
        channels: Sequence[int],
        prompts_KD: Tensor | None = None,
        width: int | None = None,
        num_modalities: int = 0,
    ) -> None:
        """`prompts`: unit-norm class prompts, for language, intra and dense under `kl`; `width`: D,
        for language, dense and the scene column; `num_modalities`: for centred embeddings."""
        super().__init__()
        self.config = config
        self.forms: dict[str, TermForm] = {
            name: getattr(config, f"{name}_form") for name in TERMS if getattr(config, name)
        }
        self.prompts_KD: Tensor | None
        self.register_buffer("prompts_KD", prompts_KD, persistent=False)
        self.centre_MD: Tensor | None
        centre = torch.zeros(num_modalities, width or 0) if config.centre else None
        self.register_buffer("centre_MD", centre)
        pictures = ["language", "dense", *(["inter"] if config.scene_column else [])]
        self.project_picture = self._projections(pictures, channels, width or 0)
        prompt_width = 0 if prompts_KD is None else prompts_KD.shape[1]
        self.project_class = self._projections(["intra"], channels, prompt_width)

    def _projections(
        self, terms: Sequence[str], channels: Sequence[int], width: int
    ) -> nn.ModuleDict:
        """One linear map for each place that these terms read."""
        places = {
            _place(form, stage): channels[stage - 1]
            for name, form in self.forms.items()
            if name in terms
            for stage in form.stages
        }
        return nn.ModuleDict({place: nn.Linear(c, width) for place, c in places.items()})

    @property
    def reads_fused(self) -> bool:
        """Whether `forward` needs the fused maps."""
        return any(form.level == "fused" for form in self.forms.values())

    def forward(
        self,
        stages: Sequence[Tensor],
        present_BM: Tensor,
        label_BHW: Tensor,
        teacher: TeacherBatch,
        fused: Sequence[Tensor] = (),
        weights_M: Tensor | None = None,
    ) -> dict[str, Tensor]:
        """The terms that have weight, unweighted.

        `stages`: maps (M, B, C_i, H_i, W_i) of the modalities; `fused`: maps (B, C_i, H_i, W_i) of
        all present ones together; `weights`: what a modality's rows count, default alike.
        """
        of_modalities = self._modalities(stages, present_BM, teacher)
        levels = {"modality": of_modalities}
        if self.reads_fused:
            levels["fused"] = _fused_level(fused, of_modalities)
        terms: dict[str, Tensor] = {}
        for name, form in self.forms.items():
            level = levels[form.level]
            weights = weights_M if form.level == "modality" else None
            values = [
                self._term(name, level, stage, label_BHW, teacher, weights) for stage in form.stages
            ]
            terms[name] = torch.stack(values).mean() if len(values) > 1 else values[0]
        return terms

    def _modalities(
        self, stages: Sequence[Tensor], present_BM: Tensor, teacher: TeacherBatch
    ) -> Level:
        taught_BM = present_BM if teacher.taught is None else present_BM & teacher.taught
        same_view_BM = taught_BM & shows_the_teachers_view(teacher.view)[:, None]
        embedding = teacher.embedding
        if embedding is not None:
            if self.centre_MD is not None:
                embedding = functional.normalize(embedding - self.centre_MD, dim=-1)
            embedding = embedding.masked_fill(~taught_BM[..., None], 0)
        return Level(stages, present_BM, taught_BM, same_view_BM, embedding, teacher.patch)

    def _term(
        self,
        name: str,
        level: Level,
        stage: int,
        label_BHW: Tensor,
        teacher: TeacherBatch,
        weights_M: Tensor | None,
    ) -> Tensor:
        if name == "inter":
            return self._inter(level, stage, teacher.scene, weights_M)
        if name == "language":
            return self._language(level, stage, weights_M)
        if name == "intra":
            return self._intra(level, stage, label_BHW, weights_M)
        return self._dense(level, stage, teacher.view, weights_M)

    def _inter(
        self, level: Level, stage: int, scene_BD: Tensor | None, weights_M: Tensor | None
    ) -> Tensor:
        assert level.embedding is not None
        form, tau = self.config.inter_form, self._tau("inter")
        pooled_BMC = _pooled(level, stage)
        student = functional.normalize(pooled_BMC, dim=-1)
        if self.config.cross_scene:
            return cross_scene_loss(
                student, level.embedding, level.same_view, tau, form.distance, weights_M=weights_M
            )
        scene = None
        if self.config.scene_column:
            assert scene_BD is not None
            projected = self.project_picture[_place(form, stage)](pooled_BMC)
            scene = (
                _cosines(functional.normalize(projected, dim=-1), scene_BD),
                _cosines(level.embedding, scene_BD),
            )
        return inter_modal_loss(
            student,
            level.embedding,
            level.same_view,
            tau,
            form.distance,
            scene_BM=scene,
            weights_M=weights_M,
        )

    def _language(self, level: Level, stage: int, weights_M: Tensor | None) -> Tensor:
        assert level.embedding is not None
        assert self.prompts_KD is not None
        form = self.config.language_form
        projected = self.project_picture[_place(form, stage)](_pooled(level, stage))
        return language_loss(
            functional.normalize(projected, dim=-1),
            level.embedding,
            self.prompts_KD,
            level.same_view,
            self._tau("language"),
            form.distance,
            weights_M=weights_M,
        )

    def _intra(
        self, level: Level, stage: int, label_BHW: Tensor, weights_M: Tensor | None
    ) -> Tensor:
        assert self.prompts_KD is not None
        form, features_MBCHW = self.config.intra_form, level.stages[stage - 1]
        height, width = features_MBCHW.shape[-2:]
        area_BKL = class_areas(label_BHW, self.prompts_KD.shape[0], height, width)
        counts_MBK = (area_BKL.sum(-1) > 0) & level.present.T[:, :, None]
        means_MBKC = class_means(features_MBCHW, area_BKL.to(features_MBCHW.dtype))
        projected = self.project_class[_place(form, stage)](means_MBKC)
        return intra_modal_loss(
            functional.normalize(projected, dim=-1),
            counts_MBK,
            self.prompts_KD,
            self._tau("intra"),
            form.distance,
            weights_M=weights_M,
        )

    def _dense(self, level: Level, stage: int, view_B5: Tensor, weights_M: Tensor | None) -> Tensor:
        assert level.patch is not None
        form, features_MBCHW = self.config.dense_form, level.stages[stage - 1]
        projected = self.project_picture[_place(form, stage)](features_MBCHW.permute(0, 1, 3, 4, 2))
        height, width = features_MBCHW.shape[-2:]
        wanted, inside_BHW = resampled_patches(level.patch, view_B5, height, width)
        taught_MB11 = level.taught.T[:, :, None, None]
        return dense_loss(
            projected,
            wanted.masked_fill(~taught_MB11[..., None], 0),
            inside_BHW & taught_MB11,
            form.distance,
            prompts_KD=self.prompts_KD,
            tau=self._tau("dense"),
            weights_M=weights_M,
        )

    def _tau(self, term: str) -> float:
        return self.forms[term].tau or self.config.tau


def _place(form: TermForm, stage: int) -> str:
    """Name of a place that features are read from."""
    return f"{form.level}_{stage}"


def _pooled(level: Level, stage: int) -> Tensor:
    """(B, M, C) means over the picture."""
    return level.stages[stage - 1].mean((3, 4)).transpose(0, 1)


def _cosines(rows_BMD: Tensor, one_BD: Tensor) -> Tensor:
    """(B, M) dot products with the one vector of each sample."""
    return (rows_BMD @ one_BD[:, :, None]).squeeze(-1)


def _fused_level(fused: Sequence[Tensor], modalities: Level) -> Level:
    """The fused maps as the one modality, and the mean of what the teacher says of those taught."""
    embedding, patch = modalities.embedding, modalities.patch
    if embedding is not None:
        embedding = functional.normalize(_mean_row(embedding, modalities.taught), dim=-1)
    if patch is not None:
        patch = _mean_row(patch, modalities.taught)
    return Level(
        stages=[stage[None] for stage in fused],
        present=modalities.present.any(1, keepdim=True),
        taught=modalities.taught.any(1, keepdim=True),
        same_view=modalities.same_view.any(1, keepdim=True),
        embedding=embedding,
        patch=patch,
    )


def _mean_row(rows_BM: Tensor, counts_BM: Tensor) -> Tensor:
    """(B, 1, ...): mean over the modalities that count; 0 if none does."""
    counts = counts_BM.view(*counts_BM.shape, *(1,) * (rows_BM.ndim - 2))
    total = rows_BM.masked_fill(~counts, 0).sum(1, keepdim=True)
    return total / counts.sum(1, keepdim=True).clamp_min(1)
