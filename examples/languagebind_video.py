"""Clips to pixel values as upstream's video processor does, without its random flip.

Order matters: normalise first, then bilinear resize of the shorter side (longer side floored), then
centre crop. Upstream mirrors every clip with probability one half, also at inference; we do not.

Writes nothing. Fails with `ValueError` for a malformed clip, `ImportError` for a video file without
PyAV.
"""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from teacher.preprocessing.options import CLIP_MEAN, CLIP_STD, Preprocessing, Sample


def frame_indices(total: int, num_frames: int) -> NDArray[np.int64]:
    """Evenly spaced frame numbers, first and last included, truncated as upstream does."""
    return np.linspace(0, total - 1, num_frames, dtype=int)


def video_pixels(sample: Sample, settings: Preprocessing, device: str | torch.device) -> Tensor:
    """A (T, H, W, 3) uint8 clip or a video file to (3, num_frames, S, S)."""
    clip = read_video(sample) if isinstance(sample, (str, Path)) else sample
    if not isinstance(clip, np.ndarray) or clip.ndim != 4 or clip.dtype != np.uint8:
        found = getattr(clip, "shape", type(clip).__name__), getattr(clip, "dtype", "")
        raise ValueError(f"clip: expected (T, H, W, 3) uint8 frames, found {found}")
    chosen = clip[frame_indices(len(clip), settings.num_frames)]
    frames_CTHW = torch.from_numpy(chosen).to(device).permute(3, 0, 1, 2).contiguous().float() / 255
    resized = _resize_short_side(_normalise(frames_CTHW), settings.size_px)
    return _centre_crop(resized, settings.size_px)


def read_video(path: str | Path) -> NDArray[np.uint8]:
    """All frames of a video file as (T, H, W, 3) uint8 RGB, through PyAV."""
    try:
        import av  # type: ignore[import-not-found]
    except ImportError as error:
        raise ImportError(
            f"{path}: reading a video file needs PyAV (`pip install av`); or pass the frames as a "
            "(T, H, W, 3) uint8 array"
        ) from error
    with av.open(str(path)) as container:
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    return np.stack(frames)


def _normalise(frames_CTHW: Tensor) -> Tensor:
    mean = torch.tensor(CLIP_MEAN, device=frames_CTHW.device).view(3, 1, 1, 1)
    std = torch.tensor(CLIP_STD, device=frames_CTHW.device).view(3, 1, 1, 1)
    return (frames_CTHW - mean) / std


def _resize_short_side(frames_CTHW: Tensor, size_px: int) -> Tensor:
    height, width = frames_CTHW.shape[-2:]
    if width < height:
        size = (math.floor(height / width * size_px), size_px)
    else:
        size = (size_px, math.floor(width / height * size_px))
    return functional.interpolate(frames_CTHW, size=size, mode="bilinear", align_corners=False)


def _centre_crop(frames_CTHW: Tensor, size_px: int) -> Tensor:
    height, width = frames_CTHW.shape[-2:]
    top, left = round((height - size_px) / 2.0), round((width - size_px) / 2.0)
    return frames_CTHW[..., top : top + size_px, left : left + size_px]
