"""The student: one backbone for all modalities, fusion at every stage, one head.

The modalities are stacked in the batch, so the backbone sees M B images at once. `features` is the
expensive half and does not depend on which modalities are fused; `logits` fuses any subset from it
and is cheap, so a second training pass and all 2^M - 1 subsets of an evaluation share one run of the
backbone. An absent modality's input never reaches the backbone.

Building raises `ConfigError` and `CheckpointError` (see `student.model.backbone`).

Legend: M modalities, B samples, C channels, H W space, K classes, S fused subsets.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from pipeline.config.student import StudentConfig
from pipeline.modalities import ModalitySpec
from student.model.backbone import Backbone
from student.model.fusion import StageFeatures, build_fusion
from student.model.head import MlpHead
from student.model.input_statistics import InputStatistics


class Student(nn.Module):
    """Segmentation from any subset of the configured modalities."""

    def __init__(
        self, config: StudentConfig, specs: Mapping[str, ModalitySpec], num_classes: int
    ) -> None:
        super().__init__()
        self.modalities = tuple(specs)
        num_stems = len(specs) if config.stems == "per_modality" else 1
        self.backbone = Backbone(config.backbone, config.weights, num_stems)
        self.fusion = build_fusion(config, self.backbone.channels, self.modalities)
        self.head = MlpHead(self.backbone.channels, config.head_channels, num_classes)
        self.input_statistics = InputStatistics(specs, self.backbone.mean, self.backbone.std)

    @property
    def device(self) -> torch.device:
        """Where it computes."""
        return self.input_statistics.statistics_M23.device

    def features(self, inputs: Mapping[str, Tensor], present_BM: Tensor) -> StageFeatures:
        """Run the backbone on the inputs of the present modalities.

        `inputs`: (B, 1 or 3, H, W) in [0, 1] for every modality; `present`: (B, M) bool in the
        order of `self.modalities`, at least one a sample.
        """
        return self.features_of(self.normalise(inputs), present_BM)

    def normalise(self, inputs: Mapping[str, Tensor]) -> Tensor:
        """(B, 1 or 3, H, W) in [0, 1] of every modality to the backbone's input (M, B, 3, H, W)."""
        normalised: Tensor = self.input_statistics(inputs)
        return normalised

    def features_of(self, inputs_MB3HW: Tensor, present_BM: Tensor) -> StageFeatures:
        """`features` of inputs that are normalised already."""
        M, B = inputs_MB3HW.shape[:2]
        stacked = inputs_MB3HW.flatten(0, 1)
        present_N = present_BM.T.reshape(-1)
        counts = present_BM.sum(0).tolist() if self.backbone.has_own_stems else ()
        if bool(present_N.all()):
            maps = self.backbone(stacked.contiguous(memory_format=torch.channels_last), counts)
        else:
            rows = present_N.nonzero().squeeze(1)
            picked = stacked[rows].contiguous(memory_format=torch.channels_last)
            maps = [_scatter(stage, rows, M * B) for stage in self.backbone(picked, counts)]
        return self.staged(maps, M)

    def staged(self, maps: Sequence[Tensor], num_modalities: int) -> StageFeatures:
        """The backbone's maps (M B, C_i, H_i, W_i) by modality, with what the fusion shares."""
        by_modality = tuple(stage.view(num_modalities, -1, *stage.shape[1:]) for stage in maps)
        return StageFeatures(by_modality, self.fusion.grams(by_modality))

    def fuse(self, features: StageFeatures, present_BM: Tensor) -> list[Tensor]:
        """One map (B, C_i, H_i, W_i) per stage, of any subset of the present modalities."""
        fused: list[Tensor] = self.fusion(features, present_BM)
        return fused

    def decode(self, *fused: Sequence[Tensor]) -> Tensor:
        """Logits (S B, K, H / 4, W / 4) of S fused feature pyramids, one after the other."""
        stages = [
            torch.cat(maps) if len(maps) > 1 else maps[0] for maps in zip(*fused, strict=True)
        ]
        logits: Tensor = self.head(stages)
        return logits

    def logits(self, features: StageFeatures, *subsets_BM: Tensor) -> Tensor:
        """Fuse each subset of the present modalities: logits (S B, K, H / 4, W / 4), subset by
        subset."""
        return self.decode(*(self.fuse(features, subset) for subset in subsets_BM))

    def forward(self, inputs: Mapping[str, Tensor], present_BM: Tensor) -> Tensor:
        """Logits (B, K, H, W) at the size of the inputs."""
        logits = self.logits(self.features(inputs, present_BM), present_BM)
        size = inputs[self.modalities[0]].shape[-2:]
        return functional.interpolate(logits, size=size, mode="bilinear")


def _scatter(maps_NCHW: Tensor, rows_N: Tensor, total: int) -> Tensor:
    """Put the maps at `rows` of a zero tensor (total, C, H, W), channels last."""
    zeros = maps_NCHW.new_zeros(total, *maps_NCHW.shape[1:])
    return zeros.contiguous(memory_format=torch.channels_last).index_copy(0, rows_N, maps_NCHW)
