"""Views, and patches resampled to the positions of a student's map."""

from __future__ import annotations

import pytest
import torch

from student.losses.correlation import dense_loss
from student.losses.patch_grid import (
    relative_to_field,
    resampled_patches,
    shows_the_teachers_view,
)
from tests.student.losses.naive import unit

D = 6


def view(top: float, left: float, height: float, width: float, mirrored: float) -> torch.Tensor:
    return torch.tensor([[top, left, height, width, mirrored]])


def distance(student_BMDHW: torch.Tensor, patches: torch.Tensor, placed: torch.Tensor) -> float:
    """1 - cosine of a map with the patches at its positions, over those that the teacher saw."""
    height, width = student_BMDHW.shape[-2:]
    sampled, inside = resampled_patches(patches, placed.to(patches.dtype), height, width)
    student = student_BMDHW.transpose(0, 1).permute(0, 1, 3, 4, 2)
    return dense_loss(student, sampled, inside.expand(sampled.shape[:-1])).item()


def test_patches_are_compared_at_the_places_that_the_student_sees():
    patches = unit(1, 1, 16, D)
    whole = patches.view(4, 4, D).permute(2, 0, 1)[None, None]
    zero = pytest.approx(0.0, abs=1e-6)
    assert distance(whole, patches, view(0, 0, 1, 1, 0)) == zero
    assert distance(whole.flip(-1), patches, view(0, 0, 1, 1, 1)) == zero
    corner = whole[..., 2:, :2]
    assert distance(corner, patches, view(0.5, 0, 0.5, 0.5, 0)) == zero
    assert distance(corner.flip(-1), patches, view(0.5, 0, 0.5, 0.5, 1)) == zero
    assert distance(corner.flip(-1), patches, view(0.5, 0, 0.5, 0.5, 0)) > 0.05


def test_places_that_the_teacher_did_not_see_are_told():
    # An image twice as wide as high: the teacher saw its middle, columns 1 and 2 of the map.
    patches = unit(1, 2, 4, D, seed=5)
    sampled, inside = resampled_patches(patches, view(0, -0.5, 1, 2, 0).double(), 2, 4)
    assert inside[0].tolist() == [[False, True, True, False]] * 2
    for m in range(2):
        grid = patches[0, m].view(2, 2, D)
        torch.testing.assert_close(sampled[m, 0, :, 1:3], grid, rtol=0, atol=1e-6)


def test_a_teacher_that_saw_the_middle_is_compared_there():
    # The teacher saw the middle half of the square: the inner 2 x 2 of a map of 4 x 4.
    patches = unit(1, 1, 4, D, seed=6)
    placed = relative_to_field(view(0, 0, 1, 1, 0), 0.5)
    sampled, inside = resampled_patches(patches, placed.double(), 4, 4)
    middle = torch.zeros(4, 4, dtype=torch.bool)
    middle[1:3, 1:3] = True
    assert torch.equal(inside[0], middle)
    grid = patches[0, 0].view(2, 2, D)
    torch.testing.assert_close(sampled[0, 0, 1:3, 1:3], grid, rtol=0, atol=1e-6)
    assert shows_the_teachers_view(relative_to_field(view(0.2, 0.1, 0.7, 0.8, 0), 0.5)).all()
    assert not shows_the_teachers_view(view(0.2, 0.1, 0.7, 0.8, 0)).any()
    whole = view(0.25, 0.5, 0.5, 0.25, 1)
    assert relative_to_field(whole, 1.0) is whole


@pytest.mark.parametrize(
    ("placed", "same"),
    [
        ((0, 0, 1, 1, 0), True),
        ((0, -0.5, 1, 2, 0), True),  # twice as wide as high: the teacher's square lies inside
        ((0, 0, 1, 1, 1), False),
        ((0, -0.5, 1, 2, 1), False),
        ((0.1, 0, 0.9, 1, 0), False),
        ((0, 0, 1, 0.99, 0), False),
    ],
)
def test_mirrored_and_cropped_views_are_not_the_teachers(placed, same):
    assert shows_the_teachers_view(view(*placed)).item() is same
