"""Resizing of decoded samples when a data set is prepared, with a kernel that suits each sensor.

Labels and kinds whose values must not be mixed (events, LiDAR points) keep their nearest pixel. The
rest is bilinear, antialiased when it shrinks (Pillow's triangle filter). In metric depth, pixels
without a measurement (0) neither grow nor leak: values are averaged over the measured pixels alone,
and a pixel stays 0 where less than half of its weight was measured.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pipeline.datasets.base import LoadedSample
from pipeline.modalities import ModalitySpec

Size = int | tuple[int, int] | None
"""Shorter side, or height and width, in pixels; None: unchanged."""


def resize_sample(
    sample: LoadedSample, size: Size, specs: Mapping[str, ModalitySpec]
) -> LoadedSample:
    """The sample at the requested size: all of its images and the label."""
    target = target_size(sample.label.shape, size)
    if target == sample.label.shape:
        return sample
    arrays = {name: resize(array, target, specs[name]) for name, array in sample.arrays.items()}
    return LoadedSample(arrays, nearest(sample.label, target))


def target_size(shape: tuple[int, ...], size: Size) -> tuple[int, int]:
    """(height, width) that `size` asks of an image of (height, width) `shape`."""
    height, width = shape
    if size is None:
        return height, width
    if isinstance(size, tuple):
        return size
    short = min(height, width)
    return max(1, round(height * size / short)), max(1, round(width * size / short))


def resize(array: NDArray[Any], size: tuple[int, int], spec: ModalitySpec) -> NDArray[Any]:
    """(H, W) or (H, W, 3) array at (height, width) `size`, same type, by the kernel of `spec`."""
    if spec.interpolation == "nearest":
        return nearest(array, size)
    if spec.unit == "mm":
        return _measured_mean(array, size)
    if array.dtype == np.uint8:
        image = Image.fromarray(array)
        return np.array(image.resize(size[::-1], Image.Resampling.BILINEAR))
    return np.rint(_bilinear(array, size)).astype(array.dtype)


def nearest(array: NDArray[Any], size: tuple[int, int]) -> NDArray[Any]:
    """The pixel at the centre of each new pixel."""
    rows, columns = (
        ((2 * np.arange(new) + 1) * old) // (2 * new)
        for new, old in zip(size, array.shape[:2], strict=True)
    )
    return np.ascontiguousarray(array[rows[:, None], columns])


def _measured_mean(depth: NDArray[Any], size: tuple[int, int]) -> NDArray[Any]:
    share = _bilinear((depth > 0).astype(np.float32), size)
    total = _bilinear(depth, size)
    mean = total / np.maximum(share, np.float32(1e-6))
    return np.where(share >= 0.5, np.rint(mean), 0).astype(depth.dtype)


def _bilinear(array: NDArray[Any], size: tuple[int, int]) -> NDArray[np.float32]:
    image = Image.fromarray(array.astype(np.float32))
    return np.array(image.resize(size[::-1], Image.Resampling.BILINEAR), np.float32)
