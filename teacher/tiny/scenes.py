"""Crops of rendered scenes: the towers' training inputs and their ground truth.

A crop has the pixel values that inference would compute; its truth is counted from the same crop of
the label map.

Shape letters: B crops, P patches, K classes, C channels, H W pixels.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from pipeline.modalities import TowerName
from teacher.preprocessing.images import depth_to_unit, normalise_pixels
from teacher.tiny.cache import Scenes
from teacher.tiny.captions import Content
from teacher.tiny.layout import GRID, IMAGE_PX, MAX_DEPTH_M
from teacher.tiny.lexicon import CLASSES

SENSORS: dict[str, TowerName] = {
    "rgb": "image",
    "event": "image",
    "depth": "depth",
    "lidar": "depth",
}
"""Sensor to tower."""


@dataclass(frozen=True, slots=True)
class Box:
    """A crop in fractions of the image: centre, half size, and whether it is mirrored."""

    centre_x: float = 0.5
    centre_y: float = 0.5
    half_width: float = 0.5
    half_height: float = 0.5
    flip: bool = False

    @property
    def whole(self) -> bool:
        return self == Box()


@dataclass(frozen=True, slots=True)
class Truth:
    """Ground truth of B crops: class shares per patch (B, P, K) and per crop (B, K), and contents."""

    patch_shares: Tensor
    areas: Tensor
    contents: tuple[Content, ...]


def random_box(rng: np.random.Generator, whole_share: float) -> Box:
    """The whole image with the given probability, else a crop of 15 to 95 % of its area."""
    flip = bool(rng.random() < 0.5)
    if rng.random() < whole_share:
        return Box(flip=flip)
    side, aspect = np.sqrt(rng.uniform(0.15, 0.95)), np.exp(rng.uniform(-0.25, 0.25))
    half_w, half_h = min(0.5 * side * aspect, 0.5), min(0.5 * side / aspect, 0.5)
    centre_x, centre_y = rng.uniform(half_w, 1 - half_w), rng.uniform(half_h, 1 - half_h)
    return Box(float(centre_x), float(centre_y), float(half_w), float(half_h), flip)


def pixel_values(
    scenes: Scenes,
    sensor: str,
    rows: NDArray[np.intp],
    boxes: list[Box],
    grey: np.random.Generator | None = None,
) -> Tensor:
    """The tower's input for one sensor of the given scenes, (B, 3, 64, 64).

    Whole unmirrored images equal `Tower.preprocess` (a test compares the two). `grey` replaces the
    channels by a random mixture of them, similar to a near-infrared image.
    """
    raw = torch.from_numpy(np.asarray(scenes.arrays[sensor][rows]).astype(np.float32))
    if SENSORS[sensor] == "depth":
        unit = depth_to_unit(raw, MAX_DEPTH_M, holes="upstream")[:, None]
    else:
        unit = raw.permute(0, 3, 1, 2) / 255.0
    if grey is not None:
        weights = torch.from_numpy(grey.dirichlet(np.ones(3), len(rows)).astype(np.float32))
        unit = torch.einsum("bchw,bc->bhw", unit, weights)[:, None]
    return normalise_pixels(_crop(unit, boxes, "bicubic"))


def truth_of(scenes: Scenes, rows: NDArray[np.intp], boxes: list[Box]) -> Truth:
    """Count the classes of every patch of the crops, without ignored pixels."""
    num_classes = len(CLASSES)
    labels = torch.from_numpy(np.asarray(scenes.arrays["label"][rows]).astype(np.float32))
    ids = _crop(labels[:, None], boxes, "nearest")[:, 0].long()
    ids[ids >= num_classes] = num_classes
    count, cell = len(rows), torch.arange(IMAGE_PX) // (IMAGE_PX // GRID)
    patch = cell[:, None] * GRID + cell[None, :]
    index = (torch.arange(count)[:, None, None] * GRID**2 + patch) * (num_classes + 1) + ids
    total = torch.bincount(index.flatten(), minlength=count * GRID**2 * (num_classes + 1))
    shares = total.view(count, GRID**2, num_classes + 1)[..., :num_classes].float()
    patch_BPK = shares / (IMAGE_PX // GRID) ** 2
    area_BK = patch_BPK.mean(dim=1)
    return Truth(patch_BPK, area_BK, _contents(scenes, rows, patch_BPK, area_BK))


def _contents(
    scenes: Scenes, rows: NDArray[np.intp], patch_BPK: Tensor, area_BK: Tensor
) -> tuple[Content, ...]:
    column_P = (torch.arange(GRID**2) % GRID + 0.5) / GRID
    weight_BK = torch.einsum("bpk,p->bk", patch_BPK, column_P) / GRID**2
    centre_BK = (weight_BK / area_BK.clamp_min(1e-6)).numpy()
    return tuple(
        Content(area_BK[i].numpy(), centre_BK[i], scenes.conditions[row])
        for i, row in enumerate(rows)
    )


def _crop(values_BCHW: Tensor, boxes: list[Box], mode: str) -> Tensor:
    """Cut and resize without antialiasing, as torch's bicubic resize does."""
    theta = torch.tensor(
        [
            [
                [(-2 if box.flip else 2) * box.half_width, 0.0, 2 * box.centre_x - 1],
                [0.0, 2 * box.half_height, 2 * box.centre_y - 1],
            ]
            for box in boxes
        ]
    )
    size = [len(boxes), values_BCHW.shape[1], IMAGE_PX, IMAGE_PX]
    grid = functional.affine_grid(theta, size, align_corners=False)
    return functional.grid_sample(
        values_BCHW, grid, mode=mode, padding_mode="border", align_corners=False
    )
