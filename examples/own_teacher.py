"""A teacher of one's own: the colours of an image and of its 4 x 4 patches. No weights, no text.

    teacher = { name = "examples.own_teacher:ColourHistogram", outputs = ["embedding", "patch"] }

The module has to be importable: installed, or its parent folder on PYTHONPATH.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor
from torch.nn import functional

from any2seg import CustomTeacher


class ColourHistogram(CustomTeacher):
    """Eight bins a channel; pixels are RGB values from 0 to 1."""

    input_px, embedding_dim, patch_shape = 64, 24, (16, 24)

    def identity(self) -> dict[str, Any]:
        """Increase the version with every change of the numbers: new targets are then made."""
        return {"version": 1}

    def load(self, dtype: str, device: str) -> Any:
        """There are no weights to read: the network is a function."""
        return histograms


def histograms(pixels_B3SS: Tensor) -> tuple[Tensor, Tensor]:
    """(B, 24) of the image and (B, 16, 24) of its patches."""
    bins_B3SS8 = functional.one_hot((pixels_B3SS * 8).long().clamp(0, 7), 8).float()
    maps_B24SS = bins_B3SS8.movedim(-1, 2).flatten(1, 2)
    patch_BPF = functional.adaptive_avg_pool2d(maps_B24SS, 4).flatten(2).transpose(1, 2)
    return patch_BPF.mean(dim=1), patch_BPF
