"""Language-guided semantic correlation distillation (LSCD): the terms over a batch.

Any2Seg publishes neither the losses nor their settings; these forms are ours, each with its own
weight:
- inter: the correlation rows of a sample's modalities, teacher against student;
- intra: the features of a class's pixels against all class prompts, matched to the class's own row;
- dense: projected features against the teacher's patch embeddings (not the paper's).

All terms read each modality's features before fusion: intra at stride 16, inter and dense at stride
32. The projections to the teacher's width serve training only and are no part of the student.

Legend: M modalities, B samples, C channels, H W space, K classes, D width of the teacher's embeddings
and prompts, F width of its (or the dense teacher's) patch embeddings, P patches.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor, nn
from torch.nn import functional

from pipeline.config.student import LscdConfig
from student.losses.correlation import (
    class_areas,
    class_means,
    dense_loss,
    inter_modal_loss,
    intra_modal_loss,
)
from student.losses.patch_grid import (
    relative_to_field,
    resampled_patches,
    shows_the_teachers_view,
)

TERMS = ("inter", "intra", "dense")
INTRA_STAGE = 2
"""Index of the stage that `intra` reads: stride 16, as measured in `docs/log.md`."""
POOLED_STAGE = 3
"""Index of the stage that `inter` and `dense` read: stride 32, as measured in `docs/log.md`."""


@dataclass(frozen=True, slots=True)
class TeacherBatch:
    """The teacher's outputs for a batch, joined by key; rows of absent modalities are ignored."""

    view: Tensor
    """(B, 5): where the student's view lies in the centred square of the source image: top, left,
    height, width (shares of its side) and whether it is mirrored."""
    embedding: Tensor | None = None
    """(B, M, D) unit-norm embeddings."""
    patch: Tensor | None = None
    """(B, M, P, F) patch embeddings of a square grid, row by row, over what the teacher saw: the
    centred square, or its middle (`fields`)."""
    has_target: Tensor | None = None
    """(B, M) bool: which of these rows hold targets; None: those of all present modalities."""
    scene: Tensor | None = None
    """(B, D) unit-norm embeddings of the scene descriptions."""


class Lscd(nn.Module):
    """The terms that have weight over a batch, with the projections that they need."""

    def __init__(
        self,
        config: LscdConfig,
        channels: Sequence[int],
        prompts_KD: Tensor | None = None,
        width: int | None = None,
        dense_width: int | None = None,
        fields: Mapping[str, float] | None = None,
    ) -> None:
        """`prompts`: unit-norm class prompts, for intra and for dense under `kl`; `width`: D, for
        the scene column and for dense; `dense_width`: F, if the patches lie in a space of their
        own, to which dense then has its own projection; `fields`: output to the side of what the
        teacher saw, as a share of the centred square's (default 1)."""
        super().__init__()
        self.config = config
        self.fields = dict(fields or {})
        self.prompts_KD: Tensor | None
        self.register_buffer("prompts_KD", prompts_KD, persistent=False)
        # In checkpoints a projection is named by the stage that it reads, counted from 1.
        self.project_picture, self.project_class = nn.ModuleDict(), nn.ModuleDict()
        self.project_dense = nn.ModuleDict()
        dense_shares = bool(config.dense) and dense_width is None
        if dense_shares or (config.inter and config.scene_column):
            assert width is not None
            self.project_picture["modality_4"] = nn.Linear(channels[POOLED_STAGE], width)
        if config.dense and dense_width is not None:
            self.project_dense["modality_4"] = nn.Linear(channels[POOLED_STAGE], dense_width)
        if config.intra:
            assert prompts_KD is not None
            # One-hot prompts have K columns instead of D.
            prompt_width = prompts_KD.shape[1]
            self.project_class["modality_3"] = nn.Linear(channels[INTRA_STAGE], prompt_width)

    def forward(
        self,
        stages: Sequence[Tensor],
        present_BM: Tensor,
        label_BHW: Tensor,
        teacher: TeacherBatch,
        weights_M: Tensor | None = None,
    ) -> dict[str, Tensor]:
        """The terms that have weight, unweighted.

        `stages`: maps (M, B, C_i, H_i, W_i) of the modalities; `weights`: the factor of each
        modality's rows, default 1.
        """
        valid_BM = present_BM if teacher.has_target is None else present_BM & teacher.has_target
        terms: dict[str, Tensor] = {}
        if self.config.inter:
            terms["inter"] = self._inter(stages[POOLED_STAGE], valid_BM, teacher, weights_M)
        if self.config.intra:
            terms["intra"] = self._intra(stages[INTRA_STAGE], present_BM, label_BHW, weights_M)
        if self.config.dense:
            terms["dense"] = self._dense(stages[POOLED_STAGE], valid_BM, teacher, weights_M)
        return terms

    def _inter(
        self,
        features_MBCHW: Tensor,
        valid_BM: Tensor,
        teacher: TeacherBatch,
        weights_M: Tensor | None,
    ) -> Tensor:
        assert teacher.embedding is not None
        # Missing rows may be NaN, and a masked row's gradient would be 0 * NaN.
        embedding = teacher.embedding.masked_fill(~valid_BM[..., None], 0)
        pooled_BMC = features_MBCHW.mean((3, 4)).transpose(0, 1)
        scene = None
        if self.config.scene_column:
            assert teacher.scene is not None
            projected = self.project_picture["modality_4"](pooled_BMC)
            scene = (
                _cosines(functional.normalize(projected, dim=-1), teacher.scene),
                _cosines(embedding, teacher.scene),
            )
        return inter_modal_loss(
            functional.normalize(pooled_BMC, dim=-1),
            embedding,
            # A pooled feature of a crop or of a mirrored image has no counterpart in the cache.
            valid_BM & shows_the_teachers_view(self._view(teacher, "embedding"))[:, None],
            self.config.tau,
            self.config.distance,
            scene_BM=scene,
            weights_M=weights_M,
        )

    def _intra(
        self,
        features_MBCHW: Tensor,
        present_BM: Tensor,
        label_BHW: Tensor,
        weights_M: Tensor | None,
    ) -> Tensor:
        assert self.prompts_KD is not None
        height, width = features_MBCHW.shape[-2:]
        area_BKL = class_areas(label_BHW, self.prompts_KD.shape[0], height, width)
        valid_MBK = (area_BKL.sum(-1) > 0) & present_BM.T[:, :, None]
        means_MBKC = class_means(features_MBCHW, area_BKL.to(features_MBCHW.dtype))
        projected = self.project_class["modality_3"](means_MBKC)
        return intra_modal_loss(
            functional.normalize(projected, dim=-1),
            valid_MBK,
            self.prompts_KD,
            self.config.tau,
            self.config.distance,
            weights_M=weights_M,
        )

    def _dense(
        self,
        features_MBCHW: Tensor,
        valid_BM: Tensor,
        teacher: TeacherBatch,
        weights_M: Tensor | None,
    ) -> Tensor:
        assert teacher.patch is not None
        project = self.project_dense or self.project_picture
        projected = project["modality_4"](features_MBCHW.permute(0, 1, 3, 4, 2))
        height, width = features_MBCHW.shape[-2:]
        patches, inside_BHW = resampled_patches(
            teacher.patch, self._view(teacher, "patch"), height, width
        )
        valid_MB11 = valid_BM.T[:, :, None, None]
        return dense_loss(
            projected,
            patches.masked_fill(~valid_MB11[..., None], 0),
            inside_BHW & valid_MB11,
            self.config.dense_distance,
            prompts_KD=self.prompts_KD,
            tau=self.config.tau,
            weights_M=weights_M,
        )

    def _view(self, teacher: TeacherBatch, output: str) -> Tensor:
        """(B, 5): the student's view in units of the square that the teacher of an output saw."""
        return relative_to_field(teacher.view, self.fields.get(output, 1.0))


def _cosines(rows_BMD: Tensor, one_BD: Tensor) -> Tensor:
    """(B, M) dot products with each sample's one vector."""
    return (rows_BMD @ one_BD[:, :, None]).squeeze(-1)
