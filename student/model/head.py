"""The all-MLP segmentation head of SegFormer (Xie et al., 2021, section 3.2), computed at low
resolution.

SegFormer projects every stage to E channels, upsamples all to stride 4, concatenates and projects
4 E to E. Two projections with nothing but upsampling and concatenation between them are one
projection per stage whose upsampled results are summed, which is what this module keeps: the same
functions, a fraction of the arithmetic. Then batch norm, ReLU and the classifier, at stride 4.

Legend: B samples, C_i channels of stage i, E head channels, K classes.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional


class MlpHead(nn.Module):
    """Logits at the resolution of the first stage."""

    def __init__(self, channels: Sequence[int], width: int, num_classes: int) -> None:
        super().__init__()
        # No bias: the batch norm that follows would subtract it again.
        self.project = nn.ModuleList(nn.Conv2d(c, width, 1, bias=False) for c in channels)
        self.norm = nn.BatchNorm2d(width)
        self.classify = nn.Conv2d(width, num_classes, 1)

    def forward(self, stages: Sequence[Tensor]) -> Tensor:
        """Stage maps (B, C_i, H_i, W_i), finest first, to logits (B, K, H_0, W_0)."""
        size = stages[0].shape[-2:]
        mixed = self.project[0](stages[0])
        for project, stage in zip(self.project[1:], stages[1:], strict=True):
            coarse = project(stage)
            mixed = mixed + functional.interpolate(coarse, size=size, mode="bilinear")
        logits: Tensor = self.classify(torch.relu(self.norm(mixed)))
        return logits
