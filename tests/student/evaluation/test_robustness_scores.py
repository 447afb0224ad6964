"""The formulas against plain loops, and what they must say in cases that can be seen through."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest

from student.evaluation.robustness_scores import average, expected, summary

NAMES = ("rgb", "depth", "event", "lidar")
SUBSETS = [s for size in range(1, 5) for s in combinations(NAMES, size)]


def test_scores_equal_the_published_benchmarks_loop() -> None:
    rng = np.random.default_rng(0)
    table = {subset: float(rng.random()) for subset in SUBSETS}
    for p in (0.2, 0.1, 0.05):
        numerator = denominator = 0.0
        for num_missing in range(4):
            for missing in combinations(NAMES, num_missing):
                left = tuple(name for name in NAMES if name not in missing)
                weight = p**num_missing * (1 - p) ** (4 - num_missing)
                numerator += table[left] * weight
                denominator += weight
        assert expected(table, p) == pytest.approx(numerator / denominator, rel=1e-12)
    assert average(table) == pytest.approx(np.mean(list(table.values())))
    assert set(summary(table)) == {"average", "expected_0.2", "expected_0.1", "expected_0.05"}


def test_limits() -> None:
    table = {subset: float(len(subset) == 4) for subset in SUBSETS}
    assert expected(table, 1e-9) == pytest.approx(1.0)
    assert average(table) == pytest.approx(1 / 15)
    even = dict.fromkeys(SUBSETS, 0.4)
    assert expected(even, 0.2) == pytest.approx(0.4)


def test_a_table_with_a_missing_subset_is_refused() -> None:
    with pytest.raises(ValueError, match="expected 15 subsets"):
        average(dict.fromkeys(SUBSETS[:-1], 0.5))
