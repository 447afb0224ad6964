"""MFF against its definition written as loops in float64, and its invariances."""

from __future__ import annotations

import math

import pytest
import torch

from student.model.mff import gram, mean_weights, mff, mff_weights, weighted_sum


def cosine(a: list[float], b: list[float]) -> float:
    dot = sum(x * y for x, y in zip(a, b, strict=True))
    lengths = [max(1e-8, math.sqrt(sum(x * x for x in v))) for v in (a, b)]
    return dot / (lengths[0] * lengths[1])


def naive_position(vectors: list[list[float]]) -> list[float]:
    """The definition for one position, from the vectors of the present modalities."""
    n = len(vectors)
    reference = [sum(column) / n for column in zip(*vectors, strict=True)]
    scaled = [[cosine(f, reference) * x for x in f] for f in vectors]
    blend = [sum(column) / n for column in zip(*scaled, strict=True)]
    best = max(vectors, key=lambda f: cosine(f, blend))
    return [b + s for b, s in zip(blend, best, strict=True)]


def naive(features: torch.Tensor, present: torch.Tensor) -> torch.Tensor:
    M, B, C, H, W = features.shape
    fused = torch.empty(B, C, H, W, dtype=features.dtype)
    for b in range(B):
        for y in range(H):
            for x in range(W):
                vectors = [features[m, b, :, y, x].tolist() for m in range(M) if present[b, m]]
                fused[b, :, y, x] = torch.tensor(naive_position(vectors), dtype=features.dtype)
    return fused


def example(num_modalities: int = 4) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(num_modalities)
    features = torch.randn(num_modalities, 3, 5, 2, 3, dtype=torch.float64, generator=generator)
    present = torch.ones(3, num_modalities, dtype=torch.bool)
    present[1, 1:] = False
    present[2, 0] = num_modalities == 1
    return features, present


@pytest.mark.parametrize("num_modalities", [1, 2, 4, 7])
def test_equals_the_definition(num_modalities):
    features, present = example(num_modalities)
    expected = naive(features, present)
    torch.testing.assert_close(mff(features, present), expected, rtol=0, atol=1e-9)
    single = mff(features.float(), present).double()
    torch.testing.assert_close(single, expected, rtol=0, atol=1e-5)


def test_the_order_of_the_modalities_does_not_matter():
    features, present = example()
    order = [2, 0, 3, 1]
    shuffled = mff(features[order], present[:, order])
    torch.testing.assert_close(shuffled, mff(features, present), rtol=0, atol=1e-12)


def test_ties_give_the_mean_of_the_winners_in_any_order():
    # Two unit vectors are exactly as close to their mean: no order can prefer one.
    features = torch.tensor([[1.0, 0.0], [0.0, 1.0]]).view(2, 1, 2, 1, 1)
    present = torch.ones(1, 2, dtype=torch.bool)
    fused = mff(features, present)
    blend = 0.5 * math.sqrt(0.5)
    torch.testing.assert_close(fused.flatten(), torch.full((2,), blend + 0.5))
    assert torch.equal(fused, mff(features.flip(0), present))


@pytest.mark.parametrize("fill", [0.0, 1e6, float("nan")])
def test_absent_modalities_are_ignored(fill):
    features, present = example()
    expected = mff(features, present)
    absent = ~present.T[:, :, None, None, None]
    torch.testing.assert_close(mff(features.masked_fill(absent, fill), present), expected)


def test_the_gradient_is_right_and_finite_at_zero():
    features, present = example(3)
    features = features[:, :, :, :1, :1].clone().requires_grad_()
    assert torch.autograd.gradcheck(lambda f: mff(f, present), (features,))
    zero = torch.zeros_like(features, requires_grad=True)
    mff(zero, present).sum().backward()
    assert torch.isfinite(zero.grad).all()


def test_one_gram_matrix_serves_every_subset():
    features, present = example()
    shared = gram(features)
    for subset in (present, present & torch.tensor([True, True, False, True])):
        fused = weighted_sum(features, mff_weights(shared, subset))
        torch.testing.assert_close(fused, mff(features, subset))


def test_mean_fusion_is_the_mean_of_what_is_there():
    features, present = example()
    fused = weighted_sum(features, mean_weights(features, present))
    for b in range(3):
        torch.testing.assert_close(fused[b], features[present[b], b].mean(0))
