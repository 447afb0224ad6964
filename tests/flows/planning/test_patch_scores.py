"""Patch classes against naive loops, and what accuracy means."""

from __future__ import annotations

import numpy as np
import pytest

from flows.planning.patch_scores import (
    accuracy,
    centre_square,
    nearest_prompts,
    patch_labels,
    vote_of_neighbours,
)
from pipeline.datasets.base import IGNORE_ID


def naive_labels(label: np.ndarray, side: int) -> list[int]:
    """Of a square label whose side is a multiple of `side`."""
    cell, classes = len(label) // side, []
    for row in range(side):
        for column in range(side):
            pixels = label[row * cell : (row + 1) * cell, column * cell : (column + 1) * cell]
            best, count = IGNORE_ID, 0
            for index in range(IGNORE_ID):
                if (pixels == index).sum() > count:
                    best, count = index, (pixels == index).sum()
            classes.append(best if 2 * count >= pixels.size else IGNORE_ID)
    return classes


def test_labels_of_patches_equal_a_naive_loop() -> None:
    rng = np.random.default_rng(0)
    coarse = rng.choice(np.array([0, 3, 24, IGNORE_ID], np.uint8), (6, 6))
    label = np.kron(coarse, np.ones((4, 4), np.uint8))
    label[rng.random(label.shape) < 0.3] = 7
    for side in (1, 2, 3, 4, 6, 12):
        assert patch_labels(label, side).tolist() == naive_labels(label, side)


def test_a_patch_without_a_majority_or_labels_does_not_count() -> None:
    label = np.array([[0, 1], [2, IGNORE_ID]], np.uint8)
    assert patch_labels(label, 1).tolist() == [IGNORE_ID]
    assert patch_labels(label, 2).tolist() == [0, 1, 2, IGNORE_ID]


def test_a_label_smaller_than_the_grid_has_patches_without_pixels() -> None:
    assert set(patch_labels(np.full((2, 2), 5, np.uint8), 3)) == {5, IGNORE_ID}


@pytest.mark.parametrize(("shape", "corner"), [((4, 10, 3), (0, 3)), ((9, 4), (2, 0))])
def test_the_centre_square(shape: tuple[int, ...], corner: tuple[int, int]) -> None:
    array = np.arange(np.prod(shape)).reshape(shape)
    square = centre_square(array)
    assert square.shape[:2] == (4, 4)
    assert (square[0, 0] == array[corner]).all()


def test_a_narrower_field_is_the_middle_of_the_square() -> None:
    label = np.zeros((8, 16), np.uint8)
    label[1:7, 5:11] = 3
    assert set(patch_labels(label, 3, 0.75)) == {3}
    assert set(patch_labels(label, 4)) == {0, 3}
    assert centre_square(label, 0.75).shape == (6, 6)


def unit(*rows: list[float]) -> np.ndarray:
    array = np.array(rows, np.float32)
    return array / np.linalg.norm(array, axis=1, keepdims=True)


def test_the_nearest_prompt_wins() -> None:
    prompts = unit([1, 0], [0, 1])
    assert nearest_prompts(unit([3, 1], [1, 3]), prompts).tolist() == [0, 1]


def test_the_vote_of_neighbours_equals_a_naive_loop() -> None:
    rng = np.random.default_rng(1)
    known, rows = unit(*rng.normal(size=(40, 6))), unit(*rng.normal(size=(30, 6)))
    labels = rng.integers(0, 4, 40).astype(np.uint8)
    for row, predicted in zip(rows, vote_of_neighbours(rows, known, labels), strict=True):
        nearest = np.argsort(-(known @ row))[:5]
        votes = {
            c: sum(1 + 1e-3 * (known[i] @ row) for i in nearest if labels[i] == c) for c in range(4)
        }
        assert predicted == max(votes, key=lambda c: votes[c])


def test_fewer_known_patches_than_neighbours_all_vote() -> None:
    known, labels = unit([1, 0], [0, 1], [0.1, 1]), np.array([2, 1, 1], np.uint8)
    assert vote_of_neighbours(unit([1, 0]), known, labels).tolist() == [1]
    assert vote_of_neighbours(unit([1, 0]), known, labels, num=1).tolist() == [2]


def test_the_class_mean_weighs_rare_classes_like_frequent_ones() -> None:
    label = np.array([0] * 9 + [1], np.uint8)
    scores = accuracy(np.zeros(10, np.uint8), label)
    assert (scores.overall, scores.class_mean) == (0.9, 0.5)
