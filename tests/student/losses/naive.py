"""The distillation terms written as loops over plain Python numbers, for comparison."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

Row = Sequence[float]


def unit(*shape: int, seed: int = 0) -> Tensor:
    """Random float64 vectors of length 1."""
    rows = torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    return functional.normalize(rows, dim=-1)


def dot(a: Tensor, b: Tensor) -> float:
    return sum(x * y for x, y in zip(a.tolist(), b.tolist(), strict=True))


def normed(a: Tensor) -> Tensor:
    return a / math.sqrt(dot(a, a))


def softmax(row: Row) -> list[float]:
    top = max(row)
    powers = [math.exp(value - top) for value in row]
    return [power / sum(powers) for power in powers]


def kl(wanted: Row, found: Row, tau: float) -> float:
    pairs = zip(softmax([w / tau for w in wanted]), softmax([f / tau for f in found]), strict=True)
    return sum(p * math.log(p / q) for p, q in pairs)


def mse(wanted: Row, found: Row, tau: float = 1.0) -> float:
    return sum((w - f) ** 2 for w, f in zip(wanted, found, strict=True)) / len(wanted)


def cosine(wanted: Row, found: Row) -> float:
    product = sum(w * f for w, f in zip(wanted, found, strict=True))
    lengths = [math.sqrt(sum(x * x for x in row)) for row in (wanted, found)]
    return 1 - product / (lengths[0] * lengths[1])


DISTANCES = {"kl": kl, "mse": mse}


def average(values: Sequence[tuple[int, float]], weights: Sequence[float] | None) -> float:
    """Mean of (modality, value) pairs, weighted by modality."""
    if not values:
        return 0.0
    w = [weights[m] if weights else 1.0 for m, _ in values]
    return sum(a * v for a, (_, v) in zip(w, values, strict=True)) / sum(w)


def inter(student, teacher, present, tau, distance, weights=None, scene=None) -> float:
    """`scene`: the (B, M) cosines of student and teacher to the scene description."""
    B, M = present.shape
    values = []
    for b in range(B):
        there = [m for m in range(M) if present[b, m]]
        for m in there:
            wanted = [dot(teacher[b, m], teacher[b, n]) for n in there]
            found = [dot(student[b, m], student[b, n]) for n in there]
            if scene is not None:
                found.append(scene[0][b, m].item())
                wanted.append(scene[1][b, m].item())
            if len(wanted) > 1:
                values.append((m, DISTANCES[distance](wanted, found, tau)))
    return average(values, weights)


def intra(projected, counts, prompts, tau, distance, weights=None) -> float:
    M, B, K = counts.shape
    values = [
        (
            m,
            DISTANCES[distance](
                [dot(prompts[k], prompt) for prompt in prompts],
                [dot(projected[m, b, k], prompt) for prompt in prompts],
                tau,
            ),
        )
        for m in range(M)
        for b in range(B)
        for k in range(K)
        if counts[m, b, k]
    ]
    return average(values, weights)


def dense(student, wanted, counts, distance, prompts, tau, weights=None) -> float:
    M, B, H, W = counts.shape
    values = []
    for m in range(M):
        for b in range(B):
            for y in range(H):
                for x in range(W):
                    if not counts[m, b, y, x]:
                        continue
                    s, t = student[m, b, y, x], wanted[m, b, y, x]
                    if distance == "kl":
                        rows = [[dot(normed(v), prompt) for prompt in prompts] for v in (t, s)]
                        values.append((m, kl(*rows, tau)))
                    else:
                        values.append((m, cosine(t.tolist(), s.tolist())))
    return average(values, weights)
