"""Counts and IoU against loops; large counts stay exact."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from student.evaluation.iou import class_iou, confusion, majority_miou, miou, miou_absent_zero

K = 4


def test_confusion_equals_loops():
    generator = torch.Generator().manual_seed(0)
    prediction = torch.randint(0, K, (3, 5, 6), generator=generator)
    label = torch.randint(0, K, (3, 5, 6), generator=generator)
    label[1, :2] = 255
    group = torch.tensor([1, 0, 1])
    expected = torch.zeros(2, K, K, dtype=torch.int64)
    for b in range(3):
        for y in range(5):
            for x in range(6):
                if label[b, y, x] < K:
                    expected[group[b], label[b, y, x], prediction[b, y, x]] += 1
    assert torch.equal(confusion(prediction, label, group, 2, K), expected)


def test_iou_strict_and_compatible():
    counts = np.array([[6, 2, 0, 1], [1, 3, 0, 0], [0, 0, 0, 0], [0, 0, 0, 5]])
    iou = class_iou(counts)
    assert iou[:2] == pytest.approx([6 / 10, 3 / 6])
    assert np.isnan(iou[2])
    assert iou[3] == pytest.approx(5 / 6)
    assert miou(iou) == pytest.approx((6 / 10 + 3 / 6 + 5 / 6) / 3)
    assert miou_absent_zero(iou) == pytest.approx((6 / 10 + 3 / 6 + 5 / 6) / 4)


def test_a_class_that_is_only_predicted_is_absent_but_its_pixels_are_missed_elsewhere():
    counts = np.array([[6, 0, 4], [0, 5, 0], [0, 0, 0]])
    iou = class_iou(counts)
    assert np.isnan(iou[2])
    assert miou(iou) == pytest.approx((6 / 10 + 1) / 2)


def test_counts_beyond_float32_are_exact():
    counts = np.diag(np.array([2**24 + 1, 2**40 + 1]))
    counts[0, 1] = 1
    assert counts.sum() == 2**24 + 2**40 + 3
    assert class_iou(counts)[0] == pytest.approx((2**24 + 1) / (2**24 + 2), abs=1e-12)


def test_without_pixels_there_is_no_score():
    assert np.isnan(miou(class_iou(np.zeros((K, K), dtype=np.int64))))


def test_majority_equals_predicting_the_most_frequent_class():
    support = np.array([30, 60, 0, 10])
    counts = np.zeros((K, K), dtype=np.int64)
    counts[:, 1] = support
    assert majority_miou(support) == pytest.approx(miou(class_iou(counts)))
