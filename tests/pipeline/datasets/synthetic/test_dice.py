"""Draws: reproducible, in range, and weighted as asked."""

from __future__ import annotations

import numpy as np

from pipeline.datasets.synthetic.dice import Dice


def _dice(seed: int = 0) -> Dice:
    return Dice(np.random.default_rng(seed))


def test_same_generator_same_draws_beyond_one_block():
    one, two = _dice(), _dice()
    assert [one.unit() for _ in range(5000)] == [two.unit() for _ in range(5000)]


def test_draws_stay_in_range():
    dice = _dice()
    values = [dice.between(-2.0, 3.0) for _ in range(3000)]
    assert -2.0 <= min(values) < -1.9
    assert 2.9 < max(values) < 3.0
    assert {dice.sign() for _ in range(50)} == {-1, 1}


def test_pick_reaches_every_option():
    dice = _dice()
    assert {dice.pick("abcd") for _ in range(200)} == set("abcd")


def test_weighted_follows_the_weights():
    dice = _dice()
    drawn = [dice.weighted({"often": 3.0, "never": 0.0, "rarely": 1.0}) for _ in range(4000)]
    assert "never" not in drawn
    assert abs(drawn.count("often") / 4000 - 0.75) < 0.03
