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


def kl(teacher: Row, student: Row, tau: float) -> float:
    rows = (softmax([value / tau for value in row]) for row in (teacher, student))
    return sum(p * math.log(p / q) for p, q in zip(*rows, strict=True))


def mse(teacher: Row, student: Row, tau: float = 1.0) -> float:
    return sum((t - s) ** 2 for t, s in zip(teacher, student, strict=True)) / len(teacher)


def cosine(teacher: Row, student: Row) -> float:
    product = sum(t * s for t, s in zip(teacher, student, strict=True))
    lengths = [math.sqrt(sum(x * x for x in row)) for row in (teacher, student)]
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
        present_modalities = [m for m in range(M) if present[b, m]]
        for m in present_modalities:
            teacher_row = [dot(teacher[b, m], teacher[b, n]) for n in present_modalities]
            student_row = [dot(student[b, m], student[b, n]) for n in present_modalities]
            if scene is not None:
                student_row.append(scene[0][b, m].item())
                teacher_row.append(scene[1][b, m].item())
            if len(teacher_row) > 1:
                values.append((m, DISTANCES[distance](teacher_row, student_row, tau)))
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


def dense(student, teacher, counts, distance, prompts, tau, weights=None) -> float:
    M, B, H, W = counts.shape
    values = []
    for m in range(M):
        for b in range(B):
            for y in range(H):
                for x in range(W):
                    if not counts[m, b, y, x]:
                        continue
                    s, t = student[m, b, y, x], teacher[m, b, y, x]
                    if distance == "kl":
                        rows = [[dot(normed(v), prompt) for prompt in prompts] for v in (t, s)]
                        values.append((m, kl(*rows, tau)))
                    else:
                        values.append((m, cosine(t.tolist(), s.tolist())))
    return average(values, weights)
