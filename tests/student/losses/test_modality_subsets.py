"""Subsets of the second pass: proper, uniform or weak first; the running IoU against loops."""

from __future__ import annotations

import math
from collections import Counter

import numpy as np
import pytest
import torch

from student.losses.modality_subsets import (
    DECAY,
    SOFTNESS,
    RunningIou,
    draw_subsets,
    draw_weak_first,
)


def test_subsets_are_proper_non_empty_and_equally_likely():
    present = np.array([[1, 1, 1], [1, 0, 1], [0, 1, 0]], dtype=bool)
    counts = [Counter() for _ in present]
    for seed in range(3000):
        for b, row in enumerate(draw_subsets(present, np.random.default_rng(seed))):
            counts[b][tuple(row.tolist())] += 1
    assert len(counts[0]) == 6
    assert (True, True, True) not in counts[0]
    assert max(counts[0].values()) < 1.25 * min(counts[0].values())
    assert set(counts[1]) == {(True, False, False), (False, False, True)}
    assert set(counts[2]) == {(False, True, False)}
    assert present.sum() == 6


def test_weak_first_draws_each_subset_as_often_as_its_best_modality_says():
    present, iou = np.array([[True, True, False, True]]), np.array([0.5, 0.1, 0.9, 0.15])
    chances = {}
    for bits in range(1, 7):
        kept = [bool(bits >> place & 1) for place in range(3)]
        best = max(v for v, k in zip((0.5, 0.1, 0.15), kept, strict=True) if k)
        chances[kept[0], kept[1], False, kept[2]] = math.exp(-best / SOFTNESS)
    rng, counts = np.random.default_rng(0), Counter()
    for _ in range(6000):
        counts[tuple(draw_weak_first(present, iou, rng)[0].tolist())] += 1
    assert set(counts) <= set(chances)
    for subset, chance in chances.items():
        assert counts[subset] / 6000 == pytest.approx(chance / sum(chances.values()), abs=0.02)
    assert present.sum() == 3


def test_weak_first_with_nothing_known_is_uniform_and_a_single_modality_stays():
    present = np.array([[True, True, True], [False, True, False]])
    rng, counts = np.random.default_rng(0), Counter()
    for _ in range(3000):
        drawn = draw_weak_first(present, np.zeros(3), rng)
        counts[tuple(drawn[0].tolist())] += 1
        assert drawn[1].tolist() == [False, True, False]
    assert len(counts) == 6
    assert max(counts.values()) < 1.25 * min(counts.values())


def test_the_running_iou_equals_counting():
    running = RunningIou(2, 3)
    generator = torch.Generator().manual_seed(0)
    inside, union = [[0.0] * 3 for _ in range(2)], [[0.0] * 3 for _ in range(2)]
    for step in range(5):
        m = step % 2
        ids = torch.randint(0, 3, (2, 4, 5), generator=generator)
        label = torch.randint(0, 2, (2, 4, 5), generator=generator)
        label[0, 0] = 255
        running.update(m, ids, label)
        for k in range(3):
            both = either = 0
            for one, other in zip(ids.flatten().tolist(), label.flatten().tolist(), strict=True):
                if other != 255:
                    both += one == k == other
                    either += k in (one, other)
            inside[m][k] = DECAY * inside[m][k] + both
            union[m][k] = DECAY * union[m][k] + either
    expected = [
        sum(i / u for i, u in zip(*rows, strict=True)) / 3
        for rows in zip(inside, union, strict=True)
    ]
    torch.testing.assert_close(running.iou(), torch.tensor(expected))
    weights = running.weights(2.0)
    torch.testing.assert_close(weights.mean(), torch.tensor(1.0))
    ratio = ((1 - expected[0]) / (1 - expected[1])) ** 2
    torch.testing.assert_close(weights[0] / weights[1], torch.tensor(ratio))


def test_an_unseen_modality_counts_as_the_weakest_and_absent_classes_do_not_count():
    running = RunningIou(2, 3)
    label = torch.zeros(1, 2, 2, dtype=torch.int64)
    running.update(0, label, label)
    assert running.iou().tolist() == [1.0, 0.0]
    running.update(1, label[:0], label[:0])
    assert running.iou().tolist() == [1.0, 0.0]
