"""Learning rates at the ends and in between."""

from __future__ import annotations

import pytest

from student.training.lr_schedule import learning_rate


def test_warm_up_is_linear_and_ends() -> None:
    rates = [learning_rate(1.0, step, 1_000_000, 4, "poly") for step in range(6)]
    assert rates == pytest.approx([0.25, 0.5, 0.75, 1.0, 1.0, 1.0], rel=1e-4)


@pytest.mark.parametrize(("decay", "half"), [("poly", 0.5**0.9), ("cosine", 0.5)])
def test_decay_at_half_time_and_near_the_end(decay: str, half: float) -> None:
    assert learning_rate(2.0, 50, 100, 0, decay) == pytest.approx(2 * half)
    last = learning_rate(2.0, 99, 100, 0, decay)
    assert 0 < last < 0.05
