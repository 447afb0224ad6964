"""Classes of patches: from labels, from prompts, from neighbours, and how often they agree.

Legend: H W space, P patches of a square grid, F width of a dense embedding, N counted patches, K classes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.datasets.base import IGNORE_ID

NUM_NEIGHBOURS = 5
QUERIES = 1024
"""Patches whose neighbours are looked for at once."""
MIN_SHARE = 0.5
"""Of a patch's pixels, for its class to count."""
_TIE_BREAK = 1e-3

Classes = NDArray[np.uint8]
Features = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Accuracy:
    """Shares of patches classified correctly, 0 to 1."""

    overall: float
    class_mean: float
    """Mean over the classes that occur."""


def accuracy(predicted_N: Classes, label_N: Classes) -> Accuracy:
    """Of at least one patch."""
    hit = predicted_N == label_N
    per_class = [hit[label_N == index].mean() for index in np.unique(label_N)]
    return Accuracy(float(hit.mean()), float(np.mean(per_class)))


def patch_labels(label_HW: Classes, side: int, field: float = 1.0) -> Classes:
    """(side * side,) classes of the patches of the label's `centre_square`, row by row.

    `IGNORE_ID` where no class fills `MIN_SHARE` of a patch.
    """
    square = centre_square(label_HW, field)
    cell = np.arange(len(square)) * side // len(square)
    patch_HW = cell[:, None] * side + cell[None, :]
    flat = (patch_HW * (IGNORE_ID + 1) + square).ravel()
    counts = np.bincount(flat, minlength=side * side * (IGNORE_ID + 1))
    counts = counts.reshape(side * side, IGNORE_ID + 1)
    best = counts[:, :IGNORE_ID].argmax(axis=1)
    count, total = counts[np.arange(len(best)), best], counts.sum(axis=1)
    fills = (count > 0) & (count >= MIN_SHARE * total)
    return np.where(fills, best, IGNORE_ID).astype(np.uint8)


def centre_square(array: NDArray[Any], field: float = 1.0) -> NDArray[Any]:
    """The square at the centre of an (H, W, ...) array, which is what a teacher sees of it.

    `field`: the square's side, as a share of the shorter side; below 1 where a processor crops more.
    """
    height, width = array.shape[:2]
    side = max(1, round(field * min(height, width)))
    top, left = (height - side) // 2, (width - side) // 2
    return array[top : top + side, left : left + side]


def nearest_prompts(features_NF: Features, prompts_KF: Features) -> Classes:
    """(N,) class whose prompt has the largest cosine."""
    nearest_N: NDArray[np.intp] = np.argmax(features_NF @ prompts_KF.T, axis=1)
    return nearest_N.astype(np.uint8)


def vote_of_neighbours(
    features_NF: Features, known_NF: Features, known_label_N: Classes, num: int = NUM_NEIGHBOURS
) -> Classes:
    """(N,) class with the most of the nearest known patches; a tie goes to the larger cosines."""
    num = min(num, len(known_NF))
    votes = np.eye(int(known_label_N.max()) + 1, dtype=np.float32)[known_label_N]
    classes = []
    for start in range(0, len(features_NF), QUERIES):
        cosines = features_NF[start : start + QUERIES] @ known_NF.T
        near = np.argpartition(-cosines, num - 1, axis=1)[:, :num]
        weight = 1.0 + _TIE_BREAK * np.take_along_axis(cosines, near, axis=1)
        classes.append((votes[near] * weight[:, :, None]).sum(axis=1).argmax(axis=1))
    return np.concatenate(classes).astype(np.uint8)
