"""The mean and standard deviation that a student's inputs are normalised with.

`student.normalise = "registry"`: the modality's own, whatever the data. `"dataset"`: measured on the
training split by `prepare` (for kinds in millimetres over measured pixels only). Colour images always
keep the statistics of the backbone's pretraining.

Legend: M modalities, B samples, H W space.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from pipeline.config.config import Config
from pipeline.core.splits import TRAIN_SPLIT
from pipeline.modalities import ModalitySpec
from pipeline.shards.manifest import Manifest

MIN_STD = 1e-3
"""A sensor that always gives the same value must not be divided by zero."""


class InputStatistics(nn.Module):
    """Normalises the inputs of all modalities, channel by channel."""

    def __init__(
        self,
        specs: Mapping[str, ModalitySpec],
        colour_mean: Sequence[float],
        colour_std: Sequence[float],
    ) -> None:
        """`colour_mean`, `colour_std`: what the backbone was pretrained with, for colour images."""
        super().__init__()
        self.modalities = tuple(specs)
        colour = (tuple(colour_mean), tuple(colour_std))
        statistics = [colour if s.kind == "rgb" else (s.mean, s.std) for s in specs.values()]
        self.statistics_M23: Tensor
        # Not in checkpoints: they follow from the config, the dataset and the backbone.
        self.register_buffer("statistics_M23", torch.tensor(statistics), persistent=False)

    def forward(self, inputs: Mapping[str, Tensor]) -> Tensor:
        """(B, 1 or 3, H, W) in [0, 1] of every modality to (M, B, 3, H, W)."""
        images = [inputs[name] for name in self.modalities]
        statistics = self.statistics_M23[..., None, None].unbind(0)
        return torch.stack([(x - s[0]) / s[1] for x, s in zip(images, statistics, strict=True)])


def input_specs(config: Config, manifest: Manifest) -> dict[str, ModalitySpec]:
    """The config's modalities with the mean and std that the student applies to their [0, 1] values."""
    specs = config.specs()
    if config.student.normalise == "registry":
        return specs
    measured = manifest.statistics(TRAIN_SPLIT).modalities
    return {
        name: replace(
            spec,
            mean=_three(measured[name].mean),
            std=_three(tuple(max(value, MIN_STD) for value in measured[name].std)),
        )
        if measured[name].num_samples
        else spec
        for name, spec in specs.items()
    }


def _three(values: tuple[float, ...]) -> tuple[float, float, float]:
    """One value for each channel of the network's input: a single channel is repeated."""
    first, *others = values
    return (first, *others) if len(others) == 2 else (first, first, first)  # type: ignore[return-value]
