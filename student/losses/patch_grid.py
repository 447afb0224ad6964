"""Where a student's view lies in what the teacher saw, and the teacher's patches at its positions.

Legend: B samples, M modalities, H W the student's map, P patches, D teacher width.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional


def relative_to_field(view_B5: Tensor, field: float) -> Tensor:
    """Views in units of the square of side `field` in the middle of the centred square.

    That is what a teacher saw whose image processor crops more than the centred square.
    """
    if field == 1.0:
        return view_B5
    top, left, height, width, mirrored = view_B5.unbind(1)
    margin = (1 - field) / 2
    scaled = [(top - margin) / field, (left - margin) / field, height / field, width / field]
    return torch.stack([*scaled, mirrored], dim=1)


def shows_the_teachers_view(view_B5: Tensor) -> Tensor:
    """(B,) bool: the student's view holds the teacher's whole square and is not mirrored.

    The embedding of a mirrored or cropped image is not that of the image, so such a sample takes no
    part in the terms on pooled features.
    """
    top, left, height, width, mirrored = view_B5.unbind(1)
    whole_B = (top <= 0) & (left <= 0) & (top + height >= 1) & (left + width >= 1)
    return whole_B & (mirrored == 0)


def resampled_patches(
    patch_BMPD: Tensor, view_B5: Tensor, height: int, width: int
) -> tuple[Tensor, Tensor]:
    """The patch embeddings at the positions of a view's map: (M, B, H, W, D), and which of those
    positions (B, H, W) the teacher saw.

    The patches keep the view that the teacher saw: a mirrored or cropped student map is compared
    with the patches at the positions that it shows.
    """
    B, M, P, D = patch_BMPD.shape
    side = round(P**0.5)
    grid_BHW2, inside_BHW = _view_grid(view_B5, height, width)
    maps = patch_BMPD.permute(0, 1, 3, 2).reshape(B, M * D, side, side)
    sampled = functional.grid_sample(
        maps, grid_BHW2.to(maps.dtype), padding_mode="border", align_corners=False
    )
    return sampled.view(B, M, D, height, width).permute(1, 0, 3, 4, 2), inside_BHW


def _view_grid(view_B5: Tensor, height: int, width: int) -> tuple[Tensor, Tensor]:
    """Sampling points of a view in grid_sample's [-1, 1], (B, H, W, 2), and which lie in the
    square."""
    top, left, view_height, view_width, mirrored = view_B5.unbind(1)
    y_H = (torch.arange(height, device=view_B5.device) + 0.5) / height
    x_W = (torch.arange(width, device=view_B5.device) + 0.5) / width
    x_BW = torch.where(mirrored[:, None] > 0, 1 - x_W, x_W)
    y_BH = top[:, None] + y_H * view_height[:, None]
    x_BW = left[:, None] + x_BW * view_width[:, None]
    y_BHW = y_BH[:, :, None].expand(-1, -1, width)
    x_BHW = x_BW[:, None, :].expand(-1, height, -1)
    inside_BHW = (y_BHW >= 0) & (y_BHW <= 1) & (x_BHW >= 0) & (x_BHW <= 1)
    return torch.stack([x_BHW, y_BHW], dim=-1) * 2 - 1, inside_BHW
