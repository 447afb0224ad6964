"""HHA: a depth image as disparity, height above the ground and angle with gravity, 3 x 8 bit.

Encoding after Gupta et al., "Learning Rich Features from RGB-D Images" (ECCV 2014): channel 0
31000 / depth in cm, channel 1 height in cm, channel 2 angle in degrees + 38; each clipped to 0..255, all 0
where there is no depth. Surface normals come from inverse depth, which is affine in the pixel on any plane.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from pipeline.datasets.synthetic.primitives import F32
from pipeline.datasets.synthetic.raycast import Lens

_SMOOTHING_PX = 2


def hha_image(depth: NDArray[np.uint16], lens: Lens, camera_height_m: float) -> NDArray[np.uint8]:
    """(H, W, 3) HHA of (H, W) millimetres along the axis of a level camera; 0 in, 0 out."""
    seen = depth > 0
    metres = np.where(seen, depth, 1000).astype(np.float32) / np.float32(1000)
    height = np.float32(camera_height_m) + metres * lens.rows()[:, None]
    angle = _angle_with_gravity(np.where(seen, 1 / metres, 0).astype(np.float32), lens)
    channels = np.stack([310 / metres, height * 100, angle + 38], axis=-1)
    return np.where(seen[..., None], np.clip(channels, 0, 255), 0).astype(np.uint8)


def _angle_with_gravity(inverse_depth: F32, lens: Lens) -> F32:
    """(H, W) degrees between the surface normal and up: 0 on level ground, 90 on walls."""
    smooth = _box_mean(_box_mean(inverse_depth, 0), 1)
    down, right = np.gradient(smooth * np.float32(lens.focal_px))
    slope, rise = lens.columns()[None, :], lens.rows()[:, None]
    forward = smooth - slope * right + rise * down
    length = np.sqrt(right * right + down * down + forward * forward) + np.float32(1e-9)
    return np.asarray(np.degrees(np.arccos(np.clip(down / length, -1, 1))), np.float32)


def _box_mean(image: F32, axis: int) -> F32:
    width = 2 * _SMOOTHING_PX + 1
    margin = [(_SMOOTHING_PX, _SMOOTHING_PX) if a == axis else (0, 0) for a in range(2)]
    padded = np.pad(image, margin, mode="edge")
    windows = np.lib.stride_tricks.sliding_window_view(padded, width, axis=axis)
    return np.asarray(windows.mean(axis=-1), np.float32)
