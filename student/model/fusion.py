"""How the features of the present modalities become one map a stage.

| fusion | what it does | parameters | order of modalities | a sample without the primary |
|---|---|---|---|---|
| `mff` | `mff.py`; optionally its reference carries the stage before | none (carry: 1 x 1) | any | - |
| `mean` | mean over the present | none | any | - |
| `concat` | 1 x 1 convolution of all, absent ones as 0 | 1 x 1 | fixed | - |
| `rgb_only` | the primary modality alone | none | any | 0: the head's constant answer |
| `cmnext` | `cmnext.py`: primary and a hub of the others | several | fixed | the hub of the others |

Every sample has its own presence mask; what stands in an absent modality's rows never counts, not
even NaN. The features of all modalities are computed once (`StageFeatures`); any number of subsets
is fused from them. Writes nothing, raises nothing.

Legend: M modalities, B samples, C channels, H W space.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn

from pipeline.config.student import StudentConfig
from student.model.cmnext import CmnextStage
from student.model.mff import (
    Carried,
    carried_products,
    gram,
    mean_weights,
    mff_weights,
    weighted_sum,
)
from student.model.upsample import resize


@dataclass(frozen=True, slots=True)
class StageFeatures:
    """What one run of the backbone gives; rows of absent modalities are 0."""

    maps: tuple[Tensor, ...]
    """(M, B, C_i, H_i, W_i) at strides 4, 8, 16, 32."""
    grams: tuple[Tensor, ...]
    """(M, M, B, H_i, W_i) dot products for MFF, shared by all subsets; empty for other fusions."""


class MeanFusion(nn.Module):
    """The plain mean over the present modalities."""

    def grams(self, maps: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Nothing that subsets could share."""
        return ()

    def forward(self, features: StageFeatures, present_BM: Tensor) -> list[Tensor]:
        """One map (B, C_i, H_i, W_i) a stage. `present`: (B, M) bool, a subset of what is there."""
        return [weighted_sum(maps, mean_weights(maps, present_BM)) for maps in features.maps]


class MffFusion(nn.Module):
    """Modality-agnostic feature fusion at every stage."""

    def __init__(self, channels: Sequence[int], carry: bool) -> None:
        super().__init__()
        steps = pairwise(channels) if carry else ()
        self.carries = nn.ModuleList(nn.Conv2d(a, b, 1, bias=False) for a, b in steps)

    def grams(self, maps: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Dot products of all pairs, from which every subset is fused."""
        return tuple(gram(found) for found in maps)

    def forward(self, features: StageFeatures, present_BM: Tensor) -> list[Tensor]:
        """One map (B, C_i, H_i, W_i) a stage."""
        fused: list[Tensor] = []
        for stage, maps in enumerate(features.maps):
            carried = self._carried(stage, fused, maps)
            weights = mff_weights(features.grams[stage], present_BM, carried)
            fused.append(weighted_sum(maps, weights))
        return fused

    def _carried(self, stage: int, fused: Sequence[Tensor], maps: Tensor) -> Carried | None:
        if not stage or not self.carries:
            return None
        before = self.carries[stage - 1](fused[stage - 1])
        return carried_products(maps, resize(before, *maps.shape[-2:]))


class ConcatFusion(nn.Module):
    """All modalities side by side through a 1 x 1 convolution a stage; absent ones are 0.

    Starts as the mean over all M, so that pretrained features are of use from the first step.
    """

    def __init__(self, channels: Sequence[int], num_modalities: int) -> None:
        super().__init__()
        self.mix = nn.ModuleList(nn.Conv2d(num_modalities * c, c, 1) for c in channels)
        for mix, c in zip(self.mix, channels, strict=True):
            share = torch.eye(c).repeat(1, num_modalities) / num_modalities
            mix.load_state_dict({"weight": share[:, :, None, None], "bias": torch.zeros(c)})

    def grams(self, maps: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Nothing that subsets could share."""
        return ()

    def forward(self, features: StageFeatures, present_BM: Tensor) -> list[Tensor]:
        """One map (B, C_i, H_i, W_i) a stage."""
        absent_MB111 = ~present_BM.T[:, :, None, None, None]
        return [
            mix(torch.cat(maps.masked_fill(absent_MB111, 0).unbind(0), dim=1))
            for mix, maps in zip(self.mix, features.maps, strict=True)
        ]


class PrimaryOnly(nn.Module):
    """The primary modality's features, whatever else is there; 0 where it is absent."""

    def __init__(self, primary: int) -> None:
        super().__init__()
        self.primary = primary

    def grams(self, maps: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Nothing that subsets could share."""
        return ()

    def forward(self, features: StageFeatures, present_BM: Tensor) -> list[Tensor]:
        """One map (B, C_i, H_i, W_i) a stage."""
        absent_B111 = ~present_BM[:, self.primary, None, None, None]
        return [maps[self.primary].masked_fill(absent_B111, 0) for maps in features.maps]


class CmnextFusion(nn.Module):
    """CMNeXt's asymmetric fusion around the primary modality, stage by stage."""

    def __init__(self, channels: Sequence[int], num_modalities: int, primary: int) -> None:
        super().__init__()
        self.stages = nn.ModuleList(CmnextStage(c, num_modalities - 1) for c in channels)
        others = [m for m in range(num_modalities) if m != primary]
        self.order = [primary, *others]

    def grams(self, maps: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Nothing that subsets could share."""
        return ()

    def forward(self, features: StageFeatures, present_BM: Tensor) -> list[Tensor]:
        """One map (B, C_i, H_i, W_i) a stage."""
        present = present_BM[:, self.order]
        return [
            stage(maps[self.order], present)
            for stage, maps in zip(self.stages, features.maps, strict=True)
        ]


Fusion = MeanFusion | MffFusion | ConcatFusion | PrimaryOnly | CmnextFusion


def build_fusion(
    config: StudentConfig, channels: Sequence[int], modalities: Sequence[str]
) -> Fusion:
    """The fusion that a config names; its primary modality defaults to the first."""
    primary = modalities.index(config.primary) if config.primary else 0
    if config.fusion == "mff":
        return MffFusion(channels, config.mff_carry)
    if config.fusion == "concat":
        return ConcatFusion(channels, len(modalities))
    if config.fusion == "rgb_only":
        return PrimaryOnly(primary)
    if config.fusion == "cmnext":
        return CmnextFusion(channels, len(modalities), primary)
    return MeanFusion()
