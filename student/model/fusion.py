"""How the features of the present modalities become one map per stage.

| fusion | what it computes | parameters | order of modalities | a sample without the primary |
|---|---|---|---|---|
| `mff` | `mff.py` | none | any | - |
| `mean` | mean over the present | none | any | - |
| `concat` | 1 x 1 convolution of all, absent ones as 0 | 1 x 1 | fixed | - |
| `rgb_only` | the primary modality alone | none | any | 0: the head's constant output |
| `cmnext` | `cmnext.py`: primary and a hub of the others | several | fixed | the hub of the others |

Every sample has its own presence mask; what an absent modality's rows hold never counts, not even
NaN. The features of all modalities are computed once (`StageFeatures`); any number of subsets is
fused from them. A new fusion is a subclass of `Fusion` and a line in `FUSIONS`.

Legend: M modalities, B samples, C channels, H W space.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from pipeline.config.student import StudentConfig
from student.model.cmnext import CmnextStage
from student.model.mff import gram, mean_weights, mff_weights, weighted_sum


@dataclass(frozen=True, slots=True)
class StageFeatures:
    """Output of one run of the backbone; rows of absent modalities are 0."""

    maps: tuple[Tensor, ...]
    """(M, B, C_i, H_i, W_i) at strides 4, 8, 16, 32."""
    grams: tuple[Tensor, ...]
    """(M, M, B, H_i, W_i) dot products for MFF, shared by all subsets; empty for other fusions."""


class Fusion(nn.Module):
    """Fuses any subset of the modalities at every stage."""

    def __init__(self, channels: Sequence[int], num_modalities: int, primary: int) -> None:
        """`channels`: widths of the stages' maps; `primary`: index of the primary modality."""
        super().__init__()

    def grams(self, maps: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """What all subsets share, once per run of the backbone; by default nothing."""
        return ()

    def forward(self, features: StageFeatures, present_BM: Tensor) -> list[Tensor]:
        """One map (B, C_i, H_i, W_i) per stage. `present`: (B, M) bool, a subset of what the samples
        have."""
        raise NotImplementedError


class MeanFusion(Fusion):
    """The plain mean over the present modalities."""

    def forward(self, features: StageFeatures, present_BM: Tensor) -> list[Tensor]:
        """See `Fusion`."""
        return [weighted_sum(maps, mean_weights(maps, present_BM)) for maps in features.maps]


class MffFusion(Fusion):
    """Modality-agnostic feature fusion at every stage."""

    def grams(self, maps: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Dot products of all pairs, from which every subset is fused."""
        return tuple(gram(stage_maps) for stage_maps in maps)

    def forward(self, features: StageFeatures, present_BM: Tensor) -> list[Tensor]:
        """See `Fusion`."""
        return [
            weighted_sum(maps, mff_weights(stage_gram, present_BM))
            for maps, stage_gram in zip(features.maps, features.grams, strict=True)
        ]


class ConcatFusion(Fusion):
    """All modalities side by side through a 1 x 1 convolution per stage; absent ones are 0.

    Starts as the mean over all M, so that pretrained features are of use from the first step.
    """

    def __init__(self, channels: Sequence[int], num_modalities: int, primary: int) -> None:
        super().__init__(channels, num_modalities, primary)
        self.mix = nn.ModuleList(nn.Conv2d(num_modalities * c, c, 1) for c in channels)
        for mix, c in zip(self.mix, channels, strict=True):
            weight = torch.eye(c).repeat(1, num_modalities) / num_modalities
            mix.load_state_dict({"weight": weight[:, :, None, None], "bias": torch.zeros(c)})

    def forward(self, features: StageFeatures, present_BM: Tensor) -> list[Tensor]:
        """See `Fusion`."""
        absent_MB111 = ~present_BM.T[:, :, None, None, None]
        return [
            mix(torch.cat(maps.masked_fill(absent_MB111, 0).unbind(0), dim=1))
            for mix, maps in zip(self.mix, features.maps, strict=True)
        ]


class PrimaryOnly(Fusion):
    """The primary modality's features, whatever else is present; 0 where it is absent."""

    def __init__(self, channels: Sequence[int], num_modalities: int, primary: int) -> None:
        super().__init__(channels, num_modalities, primary)
        self.primary = primary

    def forward(self, features: StageFeatures, present_BM: Tensor) -> list[Tensor]:
        """See `Fusion`."""
        absent_B111 = ~present_BM[:, self.primary, None, None, None]
        return [maps[self.primary].masked_fill(absent_B111, 0) for maps in features.maps]


class CmnextFusion(Fusion):
    """CMNeXt's asymmetric fusion around the primary modality, stage by stage."""

    def __init__(self, channels: Sequence[int], num_modalities: int, primary: int) -> None:
        super().__init__(channels, num_modalities, primary)
        self.stages = nn.ModuleList(CmnextStage(c, num_modalities - 1) for c in channels)
        others = [m for m in range(num_modalities) if m != primary]
        self.order = [primary, *others]

    def forward(self, features: StageFeatures, present_BM: Tensor) -> list[Tensor]:
        """See `Fusion`."""
        # A stage expects the primary modality first.
        present = present_BM[:, self.order]
        return [
            stage(maps[self.order], present)
            for stage, maps in zip(self.stages, features.maps, strict=True)
        ]


FUSIONS: dict[str, type[Fusion]] = {
    "mff": MffFusion,
    "mean": MeanFusion,
    "concat": ConcatFusion,
    "rgb_only": PrimaryOnly,
    "cmnext": CmnextFusion,
}
"""Values of `student.fusion`."""


def build_fusion(
    config: StudentConfig, channels: Sequence[int], modalities: Sequence[str]
) -> Fusion:
    """The fusion that a config names; its primary modality defaults to the first."""
    primary = modalities.index(config.primary) if config.primary else 0
    return FUSIONS[config.fusion](channels, len(modalities), primary)
