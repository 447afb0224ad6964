"""The student: one backbone for all modalities, fusion at every stage, one head.

The modalities are stacked in the batch, so the backbone sees M B pictures at once. `features` is
the expensive half and does not depend on which modalities are fused; `logits` fuses any subset
from it and is cheap, so a second training pass and all 2^M - 1 subsets of an evaluation share one
run of the backbone. What an absent modality's tensor holds never reaches the backbone.

Legend: M modalities, B samples, C channels, H W space, K classes. Writes nothing; building can
raise `ConfigError` and `CheckpointError` (see `student.backbone`).
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
        # Colour gets the statistics of the pretrained weights, other sensors the registry's.
        colour = (self.backbone.mean, self.backbone.std)
        statistics = [colour if s.kind == "rgb" else (s.mean, s.std) for s in specs.values()]
        self.statistics_M23: Tensor
        self.register_buffer("statistics_M23", torch.tensor(statistics), persistent=False)

    def features(self, inputs: Mapping[str, Tensor], present_BM: Tensor) -> StageFeatures:
        """Run the backbone on the present pictures.

        `inputs`: (B, 1 or 3, H, W) in [0, 1] for every modality; `present`: (B, M) bool in the
        order of `self.modalities`, at least one a sample.
        """
        return self.features_of(self.normalise(inputs), present_BM)

    def normalise(self, inputs: Mapping[str, Tensor]) -> Tensor:
        """Readings (B, 1 or 3, H, W) in [0, 1] to (M, B, 3, H, W), as the backbone gets them."""
        pictures = [inputs[name] for name in self.modalities]
        statistics = self.statistics_M23[..., None, None].unbind(0)
        return torch.stack([(p - s[0]) / s[1] for p, s in zip(pictures, statistics, strict=True)])

    def features_of(self, readings_MB3HW: Tensor, present_BM: Tensor) -> StageFeatures:
        """`features` of readings that are normalised already."""
        M, B = readings_MB3HW.shape[:2]
        stacked = readings_MB3HW.flatten(0, 1)
        flat_present = present_BM.T.reshape(-1)
        counts = present_BM.sum(0).tolist() if self.backbone.has_own_stems else ()
        if bool(flat_present.all()):
            maps = self.backbone(stacked.contiguous(memory_format=torch.channels_last), counts)
        else:
            rows = flat_present.nonzero().squeeze(1)
            picked = stacked[rows].contiguous(memory_format=torch.channels_last)
            maps = [_scatter(found, rows, M * B) for found in self.backbone(picked, counts)]
        return self.staged(maps, M)

    def staged(self, maps: Sequence[Tensor], num_modalities: int) -> StageFeatures:
        """The backbone's maps (M B, C_i, H_i, W_i) by modality, with what the fusion shares."""
        split = tuple(found.view(num_modalities, -1, *found.shape[1:]) for found in maps)
        return StageFeatures(split, self.fusion.grams(split))

    def fuse(self, features: StageFeatures, present_BM: Tensor) -> list[Tensor]:
        """One map (B, C_i, H_i, W_i) a stage, of any subset of the present modalities."""
        fused: list[Tensor] = self.fusion(features, present_BM)
        return fused

    def decode(self, *fused: Sequence[Tensor]) -> Tensor:
        """Logits (S B, K, H / 4, W / 4) of S fused feature pyramids, one after the other."""
        stages = [
            torch.cat(parts) if len(parts) > 1 else parts[0] for parts in zip(*fused, strict=True)
        ]
        found: Tensor = self.head(stages)
        return found

    def logits(self, features: StageFeatures, *subsets_BM: Tensor) -> Tensor:
        """Fuse each subset of the present modalities: logits (S B, K, H / 4, W / 4), subset by
        subset."""
        return self.decode(*(self.fuse(features, subset) for subset in subsets_BM))

    def forward(self, inputs: Mapping[str, Tensor], present_BM: Tensor) -> Tensor:
        """Logits (B, K, H, W) at the size of the inputs."""
        logits = self.logits(self.features(inputs, present_BM), present_BM)
        size = inputs[self.modalities[0]].shape[-2:]
        return functional.interpolate(logits, size=size, mode="bilinear")


def _scatter(found: Tensor, rows: Tensor, total: int) -> Tensor:
    """Put `found` (N, C, H, W) at `rows` of a zero tensor (total, C, H, W), channels last."""
    empty = found.new_zeros(total, *found.shape[1:]).contiguous(memory_format=torch.channels_last)
    return empty.index_copy(0, rows, found)
