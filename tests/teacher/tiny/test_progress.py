"""Budget, schedule and the losses that both phases share."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch

from teacher.tiny.progress import (
    Phase,
    contrastive_loss,
    make_optimizer,
    share_loss,
    take_step,
)


def test_rate_warms_up_and_ends_at_zero(tmp_path):
    phase = Phase("p", steps=100, minutes=60.0, log=tmp_path / "log")
    rates = []
    for step in (1, 2, 4, 52, 100):
        phase.step = step
        rates.append(phase.learning_rate(1.0))
    assert rates[0] < rates[1] < rates[2] == pytest.approx(1.0)
    assert rates[3] == pytest.approx(0.5, abs=0.02)
    assert rates[4] == pytest.approx(0.0, abs=1e-6)


def test_minutes_end_a_phase(tmp_path):
    phase = Phase("p", steps=100, minutes=1.0, log=tmp_path / "log")
    phase.started -= 61.0
    assert phase.fraction == 1.0


def test_log_holds_means_of_every_interval(tmp_path):
    phase = Phase("p", steps=5, minutes=60.0, log=tmp_path / "log", every=2)
    for value in (1.0, 3.0, 5.0, 7.0, 10.0):
        phase.advance({"loss": value})
    rows = [json.loads(line) for line in (tmp_path / "log").read_text().splitlines()]
    assert [(row["step"], row["loss"]) for row in rows] == [(2, 2.0), (4, 6.0), (5, 10.0)]


def test_contrastive_loss_equals_the_naive_loop():
    rng = np.random.default_rng([5])
    left, right = (
        torch.nn.functional.normalize(torch.tensor(m), dim=1) for m in rng.normal(size=(2, 4, 6))
    )
    total = 0.0
    for a, b in ((left, right), (right, left)):
        for i in range(4):
            logits = [3.0 * float(a[i] @ b[j]) for j in range(4)]
            total += math.log(sum(map(math.exp, logits))) - logits[i]
    loss = contrastive_loss(left, right, torch.tensor(math.log(3.0)))
    assert float(loss) == pytest.approx(total / 8)


def test_share_loss_equals_the_naive_loop_and_skips_empty_rows():
    rng = np.random.default_rng([6])
    embedding, classes = (
        torch.tensor(rng.normal(size=(3, 5))),
        torch.tensor(rng.normal(size=(4, 5))),
    )
    shares = torch.tensor([[0.5, 0.5, 0, 0], [0, 0, 0, 1.0], [0, 0, 0, 0]], dtype=torch.float64)
    total = 0.0
    for i in range(2):
        logits = [float(embedding[i] @ classes[k]) / 0.7 for k in range(4)]
        log_sum = math.log(sum(map(math.exp, logits)))
        for k in range(4):
            if shares[i, k] > 0:
                total += float(shares[i, k]) * (math.log(float(shares[i, k])) - logits[k] + log_sum)
    assert float(share_loss(embedding, classes, shares, 0.7)) == pytest.approx(total / 2)


def test_a_step_lowers_the_loss_and_refuses_nan():
    weight = torch.nn.Parameter(torch.ones(2, 2))
    optimizer = make_optimizer([weight])
    take_step(optimizer, weight.square().sum(), 0.1)
    assert float(weight.detach().square().sum()) < 4.0
    with pytest.raises(FloatingPointError, match="finite loss"):
        take_step(optimizer, weight.sum() * math.nan, 0.1)
