"""Resizing equals torch's bilinear interpolation, in value and in gradient."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from student.model.upsample import resize


@pytest.mark.parametrize(
    ("size", "target"), [((4, 4), (16, 16)), ((5, 7), (13, 30)), ((9, 8), (3, 5))]
)
def test_values_and_gradient_are_those_of_interpolate(size, target):
    torch.manual_seed(0)
    maps = torch.randn(2, 3, *size, dtype=torch.float64, requires_grad=True)
    weights = torch.randn(2, 3, *target, dtype=torch.float64)
    ours = resize(maps, *target)
    theirs = functional.interpolate(maps, size=target, mode="bilinear")
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-12)
    (ours_gradient,) = torch.autograd.grad((ours * weights).sum(), maps)
    (theirs_gradient,) = torch.autograd.grad((theirs * weights).sum(), maps)
    torch.testing.assert_close(ours_gradient, theirs_gradient, rtol=0, atol=1e-12)


def test_the_same_size_is_left_alone():
    maps = torch.randn(1, 2, 3, 4)
    assert resize(maps, 3, 4) is maps
