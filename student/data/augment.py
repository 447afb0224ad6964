"""Augmentation of a decoded sample before it becomes part of a batch.

Geometry (zoom, crop, mirror) moves all modalities and the label at once; where the teacher has stored
views, a view is the only geometry. Brightness, contrast, saturation and blur change colour images
alone: in a depth map or an event count they would be other measurements. Each draw is a function of
(seed, position).

Legend: H W space.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torchvision.transforms.v2 import functional

from pipeline.config.train import TrainConfig
from pipeline.core.random_stream import RandomStream
from pipeline.datasets.resize import nearest, resize
from pipeline.modalities import ModalitySpec
from pipeline.shards.sample_reader import Decoded

COLOUR = "rgb"
"""Kind of the modalities that are colour images."""
BLUR_PX = (0.1, 1.5)
"""Range that the standard deviation of a blur is drawn from."""
_KERNEL_PX = 9


@dataclass(frozen=True, slots=True)
class Augment:
    """Which augmentations are on, none by default; see `TrainConfig`."""

    crop_px: int | None = None
    flip: float = 0.0
    scale: tuple[float, float] = (1.0, 1.0)
    jitter: float = 0.0
    blur: float = 0.0

    @classmethod
    def of(cls, config: TrainConfig) -> Augment:
        """As a config asks for."""
        return cls(config.crop_px, config.flip, config.scale, config.jitter, config.blur)

    @property
    def zooms(self) -> bool:
        """Whether images are resized."""
        return self.scale != (1.0, 1.0)

    @property
    def recolours(self) -> bool:
        """Whether colour images are changed."""
        return self.jitter > 0 or self.blur > 0


@dataclass(frozen=True, slots=True)
class Crop:
    """Which part of a sample is shown: its corner in pixels of the zoomed image, mirrored or not, and
    the zoom factors, vertical and horizontal."""

    top: int = 0
    left: int = 0
    mirrored: bool = False
    zoom: tuple[float, float] = (1.0, 1.0)


def zoomed(
    sample: Decoded, augment: Augment, specs: Mapping[str, ModalitySpec], seed: int, position: int
) -> Decoded:
    """The sample resized by a factor drawn from `augment.scale`, uniform in its logarithm."""
    if not augment.zooms:
        return sample
    rng = np.random.default_rng([seed, RandomStream.AUGMENTATION, position, 0])
    factor = math.exp(rng.uniform(*np.log(augment.scale)))
    height, width = (max(1, round(side * factor)) for side in sample.label.shape)
    return fit(sample, (height, width), specs)


def fit(sample: Decoded, size: tuple[int, int], specs: Mapping[str, ModalitySpec]) -> Decoded:
    """The sample resized: images bilinearly; labels, metric depth and sparse images to the
    nearest pixel, so that no class, gap or distance is invented."""
    if sample.label.shape == size:
        return sample
    arrays = {
        name: nearest(array, size) if specs[name].unit == "mm" else resize(array, size, specs[name])
        for name, array in sample.arrays.items()
    }
    return Decoded(arrays, nearest(sample.label, size))


def recoloured(
    sample: Decoded, augment: Augment, specs: Mapping[str, ModalitySpec], seed: int, position: int
) -> Decoded:
    """The sample with its colour images changed in brightness, contrast and saturation, and blurred."""
    if not augment.recolours:
        return sample
    rng = np.random.default_rng([seed, RandomStream.AUGMENTATION, position, 1])
    factors = rng.uniform(1 - augment.jitter, 1 + augment.jitter, 3).tolist()
    sigma = float(rng.uniform(*BLUR_PX)) if rng.random() < augment.blur else 0.0
    arrays = {
        name: _recolour(array, factors, sigma) if specs[name].kind == COLOUR else array
        for name, array in sample.arrays.items()
    }
    return Decoded(arrays, sample.label)


def _recolour(array_HW3: NDArray[Any], factors: list[float], sigma: float) -> NDArray[Any]:
    image = torch.from_numpy(np.ascontiguousarray(array_HW3)).permute(2, 0, 1)
    brightness, contrast, saturation = factors
    if factors != [1.0, 1.0, 1.0]:
        image = functional.adjust_brightness(image, brightness)
        image = functional.adjust_contrast(image, contrast)
        image = functional.adjust_saturation(image, saturation)
    if sigma:
        image = functional.gaussian_blur(image, [_KERNEL_PX, _KERNEL_PX], [sigma, sigma])
    changed: NDArray[Any] = image.permute(1, 2, 0).numpy()
    return changed
