"""Per-modality stems: the backbone's first convolution once for each modality, the rest shared.

Each copy starts from the same (pretrained) weights and learns its own sensor's first filters; the
norm that follows stays shared.
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from pipeline.errors import ConfigError


class ModalityConv(nn.Module):
    """One convolution for each modality, over rows that are sorted by modality."""

    def __init__(self, conv: nn.Conv2d, num_modalities: int) -> None:
        super().__init__()
        self.convs = nn.ModuleList(copy.deepcopy(conv) for _ in range(num_modalities))
        self.rows: tuple[int, ...] = (0,) * num_modalities
        """Rows of each modality in the next input; set before the backbone runs."""

    def forward(self, images_N3HW: Tensor) -> Tensor:
        """(N, 3, H, W) to (N, C, H', W'). A modality without rows gets a gradient of 0."""
        by_modality = torch.split(images_N3HW, list(self.rows))
        return torch.cat([conv(own) for conv, own in zip(self.convs, by_modality, strict=True)])


def split_stem(net: nn.Module, name: str, num_modalities: int) -> ModalityConv:
    """Replace the convolution that reads the image by one for each modality.

    Raises `ConfigError` unless exactly one convolution of `net` reads three channels.
    """
    candidates = [
        path
        for path, module in net.named_modules()
        if isinstance(module, nn.Conv2d) and module.in_channels == 3 and module.groups == 1
    ]
    if len(candidates) != 1:
        raise ConfigError(
            f"student.stems = 'per_modality': expected one convolution of {name} to read the "
            f"image, found {', '.join(candidates) or 'none'}. Set student.stems to 'shared'."
        )
    parent_path, _, child = candidates[0].rpartition(".")
    parent = net.get_submodule(parent_path)
    conv = parent.get_submodule(child)
    assert isinstance(conv, nn.Conv2d)
    stem = ModalityConv(conv, num_modalities)
    setattr(parent, child, stem)
    return stem
