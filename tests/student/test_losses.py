"""Class weights and cross-entropy against loops."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from student.losses import class_weights, segmentation_loss


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
