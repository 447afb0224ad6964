"""Every distillation term against its definition written as loops in float64; gradients by finite
differences."""

from __future__ import annotations

import functools

import pytest
import torch
from torch.nn import functional

from student.losses.correlation import (
    class_areas,
    class_means,
    dense_loss,
    inter_modal_loss,
    intra_modal_loss,
)
from tests.student.losses import naive
from tests.student.losses.naive import unit

B, M, D, K = 4, 3, 6, 5
TAU = 0.3
WEIGHTS = [0.4, 1.1, 1.5]
every_distance = pytest.mark.parametrize("distance", ["kl", "mse"])
every_dense_distance = pytest.mark.parametrize("distance", ["cosine", "kl"])
weighted_or_not = pytest.mark.parametrize("weights", [None, WEIGHTS])


def presence() -> torch.Tensor:
    """All, all but one, exactly one, none of the modalities."""
    return torch.tensor([[1, 1, 1], [1, 0, 1], [0, 1, 0], [0, 0, 0]], dtype=torch.bool)


def tensor(weights: list[float] | None) -> torch.Tensor | None:
    return None if weights is None else torch.tensor(weights, dtype=torch.float64)


def check(loss: torch.Tensor, expected: float) -> None:
    assert expected > 0
    assert loss.item() == pytest.approx(expected, abs=1e-9)


@every_distance
@weighted_or_not
def test_inter_modal_equals_loops(distance, weights):
    student, teacher, present = unit(B, M, D), unit(B, M, D + 2, seed=1), presence()
    loss = inter_modal_loss(student, teacher, present, TAU, distance, weights_M=tensor(weights))
    check(loss, naive.inter(student, teacher, present, TAU, distance, weights))


@every_distance
@weighted_or_not
def test_the_scene_is_one_column_more_and_a_single_modality_counts(distance, weights):
    student, teacher, present = unit(B, M, D), unit(B, M, D, seed=1), presence()
    scene = (unit(B, M, seed=2), unit(B, M, seed=3))
    loss = inter_modal_loss(
        student, teacher, present, TAU, distance, scene_BM=scene, weights_M=tensor(weights)
    )
    check(loss, naive.inter(student, teacher, present, TAU, distance, weights, scene))


@every_distance
@weighted_or_not
def test_intra_modal_equals_loops(distance, weights):
    projected, prompts = unit(M, B, K, D), unit(K, D, seed=2)
    counts = torch.rand(M, B, K, generator=torch.Generator().manual_seed(3)) < 0.4
    loss = intra_modal_loss(projected, counts, prompts, TAU, distance, weights_M=tensor(weights))
    check(loss, naive.intra(projected, counts, prompts, TAU, distance, weights))


@every_dense_distance
@weighted_or_not
def test_dense_equals_loops(distance, weights):
    student, targets = 2 * unit(M, B, 2, 3, D), unit(M, B, 2, 3, D, seed=1)
    counts = torch.rand(M, B, 2, 3, generator=torch.Generator().manual_seed(3)) < 0.7
    prompts = unit(K, D, seed=2)
    loss = dense_loss(
        student, targets, counts, distance, prompts_KD=prompts, tau=TAU, weights_M=tensor(weights)
    )
    check(loss, naive.dense(student, targets, counts, distance, prompts, TAU, weights))


@every_distance
def test_gradients_of_the_correlation_rows(distance):
    present = presence()
    student = unit(B, M, D).requires_grad_()
    teacher, prompts = unit(B, M, D, seed=1), unit(K, D, seed=2)
    counts = torch.ones(M, 1, K, dtype=torch.bool)
    projected = unit(M, 1, K, D, seed=3).requires_grad_()
    inter = functools.partial(inter_modal_loss, weights_M=tensor(WEIGHTS))
    gradcheck = torch.autograd.gradcheck
    assert gradcheck(lambda s: inter(s, teacher, present, TAU, distance), (student,))
    assert gradcheck(lambda p: intra_modal_loss(p, counts, prompts, TAU, distance), (projected,))


@every_dense_distance
def test_gradients_of_the_dense_term(distance):
    maps, targets = unit(1, 1, 2, 2, D, seed=4).requires_grad_(), unit(1, 1, 2, 2, D, seed=5)
    valid = torch.ones(1, 1, 2, 2, dtype=torch.bool)
    dense = functools.partial(dense_loss, prompts_KD=unit(K, D, seed=2), tau=TAU)
    assert torch.autograd.gradcheck(lambda m: dense(m, targets, valid, distance), (maps,))


@every_distance
def test_a_perfect_student_has_no_inter_modal_loss(distance):
    teacher, present = unit(B, M, D), torch.ones(B, M, dtype=torch.bool)
    loss = inter_modal_loss(teacher, teacher, present, TAU, distance)
    assert loss.item() == pytest.approx(0, abs=1e-12)


@every_dense_distance
def test_a_perfect_student_has_no_dense_loss(distance):
    teacher, valid = unit(M, B, 2, 2, D), torch.ones(M, B, 2, 2, dtype=torch.bool)
    loss = dense_loss(teacher, teacher, valid, distance, prompts_KD=unit(K, D, seed=2), tau=TAU)
    assert loss.item() == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize(("size", "grid"), [((12, 18), (3, 5)), ((8, 8), (2, 2)), ((3, 3), (4, 4))])
def test_class_means_are_means_over_pixels(size, grid):
    generator = torch.Generator().manual_seed(0)
    label = torch.randint(0, K, (2, *size), generator=generator)
    label[:, 0] = 255
    label[1][label[1] == 2] = 255
    features = torch.randn(M, 2, 4, *grid, dtype=torch.float64, generator=generator)
    areas = class_areas(label, K, *grid).double()
    means = class_means(features, areas)
    pixels = functional.interpolate(features.flatten(0, 1), size=size, mode="nearest")
    pixels = pixels.view(M, 2, 4, *size)
    for m in range(M):
        for b in range(2):
            for k in range(K):
                there = label[b] == k
                expected = (
                    pixels[m, b][:, there].mean(1) if there.any() else torch.zeros(4).double()
                )
                torch.testing.assert_close(means[m, b, k], expected, rtol=0, atol=1e-9)
