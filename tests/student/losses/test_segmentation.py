"""Class weights and cross-entropy against loops."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from student.losses.segmentation import (
    class_weights,
    consistency_loss,
    hard_pixel_loss,
    segmentation_loss,
)


def test_class_weights_average_to_one_over_pixels():
    pixels = np.array([900, 0, 90, 10])
    weights = class_weights(pixels, -0.5).double()
    assert weights[1] == 0
    assert (weights.numpy() * pixels).sum() / 1000 == pytest.approx(1.0, abs=1e-6)
    assert (weights[3] / weights[0]).item() == pytest.approx(math.sqrt(90), rel=1e-6)
    assert class_weights(pixels, 0.0).tolist() == [1.0, 0.0, 1.0, 1.0]


def test_loss_equals_loops():
    torch.manual_seed(0)
    logits = torch.randn(2, 3, 4, 5, dtype=torch.float64, requires_grad=True)
    label = torch.randint(0, 3, (2, 4, 5))
    label[0, 0] = 255
    weights = torch.tensor([0.5, 1.0, 3.0], dtype=torch.float64)
    total = norm = 0.0
    for b in range(2):
        for y in range(4):
            for x in range(5):
                k = int(label[b, y, x])
                if k == 255:
                    continue
                row = logits[b, :, y, x].tolist()
                total += weights[k].item() * (math.log(sum(map(math.exp, row))) - row[k])
                norm += weights[k].item()
    assert segmentation_loss(logits, label, weights).item() == pytest.approx(total / norm, abs=1e-9)
    assert torch.autograd.gradcheck(lambda z: segmentation_loss(z, label, weights), (logits,))


def test_a_batch_of_ignored_pixels_costs_nothing():
    logits = torch.randn(1, 3, 2, 2, requires_grad=True)
    loss = segmentation_loss(logits, torch.full((1, 2, 2), 255), torch.ones(3))
    loss.backward()
    assert loss == 0
    assert torch.equal(logits.grad, torch.zeros_like(logits))


def pixels(logits, label):
    """Nats and class of every labelled pixel."""
    losses = []
    for b in range(label.shape[0]):
        for y in range(label.shape[1]):
            for x in range(label.shape[2]):
                k = int(label[b, y, x])
                if k != 255:
                    row = logits[b, :, y, x].tolist()
                    losses.append((math.log(sum(map(math.exp, row))) - row[k], k))
    return losses


@pytest.mark.parametrize(("threshold", "keep"), [(0.7, 0.1), (0.05, 0.4), (0.3, 0.0), (0.2, 1.0)])
def test_hard_pixels_equal_loops(threshold, keep):
    torch.manual_seed(1)
    logits = (2 * torch.randn(2, 3, 4, 5, dtype=torch.float64)).requires_grad_()
    label = torch.randint(0, 3, (2, 4, 5))
    label[0, 0] = 255
    weights = torch.tensor([0.5, 1.0, 3.0], dtype=torch.float64)
    losses = sorted(pixels(logits, label), reverse=True)
    num_kept = math.ceil(keep * len(losses))
    kept = [p for i, p in enumerate(losses) if i < num_kept or p[0] >= -math.log(threshold)]
    assert 0 < len(kept) <= len(losses)
    assert (len(kept) < len(losses)) == (keep < 1)
    expected = sum(weights[k].item() * n for n, k in kept) / sum(weights[k].item() for _, k in kept)
    loss = hard_pixel_loss(logits, label, weights, threshold, keep)
    assert loss.item() == pytest.approx(expected, abs=1e-9)
    assert torch.autograd.gradcheck(
        lambda z: hard_pixel_loss(z, label, weights, threshold, keep), (logits,)
    )


def test_hard_pixels_of_a_batch_without_labels_cost_nothing():
    logits = torch.randn(1, 3, 2, 2, requires_grad=True)
    loss = hard_pixel_loss(logits, torch.full((1, 2, 2), 255), torch.ones(3), 0.7, 0.1)
    loss.backward()
    assert loss == 0
    assert torch.equal(logits.grad, torch.zeros_like(logits))


def test_consistency_equals_loops_and_gives_the_teacher_no_gradient():
    torch.manual_seed(2)
    student = torch.randn(2, 3, 2, 2, dtype=torch.float64, requires_grad=True)
    teacher = torch.randn(2, 3, 2, 2, dtype=torch.float64, requires_grad=True)
    total = 0.0
    for b in range(2):
        for y in range(2):
            for x in range(2):
                rows = [[math.exp(v) for v in z[b, :, y, x].tolist()] for z in (teacher, student)]
                p, q = ([v / sum(row) for v in row] for row in rows)
                total += sum(a * math.log(a / c) for a, c in zip(p, q, strict=True))
    loss = consistency_loss(student, teacher)
    assert loss.item() == pytest.approx(total / 8, abs=1e-9)
    assert torch.autograd.gradcheck(lambda z: consistency_loss(z, teacher.detach()), (student,))
    loss.backward()
    assert teacher.grad is None
