"""The measures by which a tiny teacher is scored, against hand counts and naive loops."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from teacher.tiny.score import area_under_curve, between_sensors


def test_area_under_curve_by_hand():
    score = np.array([0.1, 0.4, 0.35, 0.8])
    positive = np.array([False, False, True, True])
    assert area_under_curve(score, positive) == pytest.approx(0.75)
    assert area_under_curve(np.zeros(4), positive) == pytest.approx(0.5)


def test_matrix_between_sensors_varies_only_if_embeddings_do():
    generator = torch.Generator().manual_seed(0)
    one = torch.nn.functional.normalize(torch.randn(3, 8, generator=generator), dim=1)
    same = {name: row.expand(5, 8) for name, row in zip("abc", one, strict=True)}
    still = between_sensors(same)
    assert still["kl_nats"] == pytest.approx(0.0, abs=1e-4)
    assert still["cosine_mean"]["a-b"] == pytest.approx(float(one[0] @ one[1]), abs=1e-3)
    moved = dict(
        same, a=torch.nn.functional.normalize(torch.randn(5, 8, generator=generator), dim=1)
    )
    assert between_sensors(moved)["kl_nats"] > 0.05


def test_between_sensors_equals_the_naive_loop():
    generator = torch.Generator().manual_seed(3)
    embeddings = {
        name: torch.nn.functional.normalize(torch.randn(4, 6, generator=generator), dim=1)
        for name in "abc"
    }
    rows = np.zeros((4, 3, 3))
    stack = [embeddings[name].numpy() for name in "abc"]
    for n in range(4):
        for i in range(3):
            exps = [0.0 if i == j else np.exp(stack[i][n] @ stack[j][n] / 0.1) for j in range(3)]
            rows[n, i] = np.array(exps) / sum(exps)
    mean = rows.mean(axis=0)
    total = sum(
        rows[n, i, j] * np.log(rows[n, i, j] / mean[i, j])
        for n in range(4)
        for i in range(3)
        for j in range(3)
        if i != j
    )
    assert between_sensors(embeddings)["kl_nats"] == pytest.approx(total / 12, abs=1e-4)
