"""Stored samples to pixel values as upstream's processors compute them, batched on the device.

Upstream by default: bicubic resize of the float tensor WITHOUT antialiasing, shorter side to the
input size, longer side truncated, centre crop, CLIP mean and standard deviation. Depth is
millimetres, clipped to [0.01, max_depth] metres, not inverted. Every deviation is a field of
`teacher.preprocessing.config.Preprocessing`.

Rules for images that upstream refuses: one channel is replicated to three, alpha is dropped,
palettes are expanded, 16-bit values are divided by 65535 (depth: they are millimetres), values that
16 bits cannot hold are refused. EXIF orientation is ignored, as upstream does.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from pipeline.formats.image_file import BadImageError, read_any_image
from teacher.preprocessing.config import CLIP_MEAN, CLIP_STD, ImageArray, Preprocessing, Sample

NEAREST_M = 0.01
"""Upstream's lower clip of metric depth, and so the depth of a hole."""


def to_pixels(
    samples: Sequence[Sample], preprocessing: Preprocessing, device: str | torch.device = "cpu"
) -> Tensor:
    """Pixel values (B, 3, S, S) of `samples` for the tower of `preprocessing`, float32 on `device`.

    Samples are image files or arrays: (H, W) or (H, W, 3), uint8 or uint16; (H, W) millimetres for
    depth. Raises `ValueError` naming the position of a sample of another form.
    """
    arrays = [_as_array(sample, index) for index, sample in enumerate(samples)]
    size_px = preprocessing.size_px
    out = torch.empty((len(arrays), 3, size_px, size_px), device=device)
    for indices in _groups(arrays):
        batch = np.stack([arrays[i] for i in indices])
        if preprocessing.tower == "depth":
            unit_BCHW = _depth_unit(batch, preprocessing, device, indices[0])
        else:
            unit_BCHW = _colour_unit(batch, device, indices[0])
        cropped = resize_and_crop(unit_BCHW, size_px, preprocessing.antialias)
        out[torch.as_tensor(indices, device=device)] = normalise_pixels(cropped)
    return out


def resize_and_crop(unit_BCHW: Tensor, size_px: int, antialias: bool) -> Tensor:
    """Shorter side to `size_px` (bicubic), longer side truncated to an integer, centre crop."""
    height, width = unit_BCHW.shape[-2:]
    short, long = min(height, width), max(height, width)
    long_px = int(size_px * long / short)  # truncated, not rounded: torchvision's rule
    size = [size_px, long_px] if height <= width else [long_px, size_px]
    if size != [height, width]:
        unit_BCHW = functional.interpolate(
            unit_BCHW, size=size, mode="bicubic", align_corners=False, antialias=antialias
        )
    top, left = round((size[0] - size_px) / 2), round((size[1] - size_px) / 2)
    return unit_BCHW[..., top : top + size_px, left : left + size_px]


def normalise_pixels(unit_BCHW: Tensor) -> Tensor:
    """Standardise by CLIP's mean and deviation; a single channel broadcasts to three."""
    mean = torch.tensor(CLIP_MEAN, device=unit_BCHW.device).view(3, 1, 1)
    std = torch.tensor(CLIP_STD, device=unit_BCHW.device).view(3, 1, 1)
    return (unit_BCHW - mean) / std


def depth_to_unit(depth_mm: Tensor, max_depth_m: float, holes: str) -> Tensor:
    """(..., H, W) float millimetres to (0, 1]: metres, clipped, divided by the maximum depth."""
    metres = depth_mm / 1000.0
    largest = metres.amax((-2, -1), keepdim=True) if max_depth_m == 0 else max_depth_m
    if holes == "far":
        metres = torch.where(depth_mm == 0, largest, metres)
    metres = metres.clamp(min=NEAREST_M)
    if max_depth_m == 0:
        return metres / metres.amax((-2, -1), keepdim=True)
    return metres.clamp(max=max_depth_m) / max_depth_m


def _as_array(sample: Sample, index: int) -> ImageArray:
    if isinstance(sample, (str, Path)):
        try:
            return read_any_image(Path(sample))
        except BadImageError as error:
            raise ValueError(f"sample {index}: {error}") from None
    if not isinstance(sample, np.ndarray) or sample.dtype not in (np.uint8, np.uint16):
        form = getattr(sample, "dtype", type(sample).__name__)
        raise ValueError(f"sample {index}: expected a uint8 or uint16 array or a path, got {form}")
    return sample


def _groups(arrays: Sequence[ImageArray]) -> list[list[int]]:
    """Indices by shape and dtype, so that each group is resized as one batch."""
    groups: dict[tuple[Any, ...], list[int]] = {}
    for index, array in enumerate(arrays):
        groups.setdefault((array.shape, array.dtype), []).append(index)
    return list(groups.values())


def _colour_unit(batch: ImageArray, device: str | torch.device, index: int) -> Tensor:
    """(B, H, W) or (B, H, W, 3 or 4) code values to (B, 1 or 3, H, W) in [0, 1]."""
    if batch.ndim == 3:
        batch = batch[..., None]
    if batch.ndim != 4 or batch.shape[-1] not in (1, 3, 4):
        raise ValueError(
            f"sample {index}: expected (H, W) or (H, W, 3), found {tuple(batch.shape[1:])}"
        )
    largest = 255.0 if batch.dtype == np.uint8 else 65535.0
    values = _on_device(batch[..., :3], device).permute(0, 3, 1, 2)
    return values.contiguous().float().div(largest)


def _depth_unit(
    batch: ImageArray, preprocessing: Preprocessing, device: str | torch.device, index: int
) -> Tensor:
    if batch.ndim != 3:
        raise ValueError(
            f"sample {index}: expected (H, W) depth in millimetres, found {tuple(batch.shape[1:])}"
        )
    depth_mm = _on_device(batch, device).float()
    return depth_to_unit(depth_mm, preprocessing.max_depth_m, preprocessing.holes)[:, None]


def _on_device(batch: ImageArray, device: str | torch.device) -> Tensor:
    """Move integers, not floats; torch has no arithmetic on uint16, so those go as int32."""
    narrow = batch if batch.dtype == np.uint8 else batch.astype(np.int32)
    return torch.from_numpy(np.ascontiguousarray(narrow)).to(device)
