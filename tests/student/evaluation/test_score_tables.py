"""Scores from known counts: strict and compatible, by group, and the scores under corruption."""

from __future__ import annotations

import numpy as np
import pytest

from student.evaluation.iou import class_iou, miou, miou_absent_zero
from student.evaluation.robustness_scores import average, expected
from student.evaluation.score_tables import CorruptedCounts, Scores, all_subsets, summarise


def test_subsets_small_ones_first_in_the_configs_order():
    assert all_subsets(("r", "d", "e")) == (
        ("r",),
        ("d",),
        ("e",),
        ("r", "d"),
        ("r", "e"),
        ("d", "e"),
        ("r", "d", "e"),
    )
    assert len(all_subsets("abcd")) == 15


@pytest.fixture(scope="module")
def counts() -> np.ndarray:
    """Of two sensors each alone errs in the first group; class 2 never occurs."""
    counts = np.zeros((3, 3, 3, 3), dtype=np.int64)
    counts[0, 0] = [[4, 0, 0], [4, 0, 0], [0, 0, 0]]
    counts[0, 1] = [[0, 0, 0], [0, 6, 0], [0, 0, 0]]
    counts[0, 2] = [[0, 0, 0], [0, 2, 0], [0, 0, 0]]
    counts[1] = counts[0][::-1]
    counts[2] = counts[0]
    counts[2, 0] = [[4, 0, 0], [0, 4, 0], [0, 0, 0]]
    return counts


GROUPS = (("", ""), ("fog", ""), ("fog", "lost"))


def scores(counts: np.ndarray, corrupted: CorruptedCounts | None = None) -> Scores:
    return Scores((("r",), ("d",), ("r", "d")), GROUPS, counts, np.full((3, 3), 2), corrupted)


def test_summary_of_known_counts(counts):
    found = summarise(scores(counts))
    single = miou(class_iou(counts[0].sum(0)))
    assert found["support"] == found["subsets"][0]["support"] == [4, 12, 0]
    assert found["all"] == 1.0
    assert found["subsets"][2]["miou_absent_zero"] == pytest.approx(2 / 3)
    assert found["subsets"][0]["miou"] == found["singles_mean"] == pytest.approx(single)
    assert found["mean"] == pytest.approx((2 * single + 1) / 3)
    assert found["worst"] == {"modalities": ["r"], "miou": pytest.approx(single)}
    assert found["subsets"][0]["per_class"][2] is None
    assert found["majority_class_miou"] == pytest.approx(12 / 16 / 2)
    assert found["robustness"] is None


def test_absent_classes_count_only_in_the_compatible_scores(counts):
    found = summarise(scores(counts))
    assert found["absent_zero"]["all"] == pytest.approx(2 / 3)
    assert found["absent_zero"]["mean"] == pytest.approx(found["mean"] * 2 / 3)
    assert found["absent_zero"]["worst"]["miou"] == pytest.approx(found["worst"]["miou"] * 2 / 3)


def test_a_group_counts_under_its_condition_and_under_its_corner_case(counts):
    found = summarise(scores(counts))
    assert found["conditions"] == {"fog": {"num_samples": 4, "support": [0, 8, 0]}}
    assert found["corner_cases"] == {"lost": {"num_samples": 2, "support": [0, 2, 0]}}
    first = found["subsets"][0]
    assert first["num_samples"] == 6
    assert first["per_condition"] == {
        "fog": {"miou": 1.0, "miou_absent_zero": pytest.approx(1 / 3)}
    }
    assert first["per_corner_case"]["lost"]["miou"] == 1.0


def test_a_subset_that_no_sample_of_a_condition_has_is_not_scored_there(counts):
    counts = counts.copy()
    counts[1, 1:] = 0
    second = summarise(scores(counts))["subsets"][1]
    assert second["per_condition"] == {"fog": {"miou": None, "miou_absent_zero": None}}


def test_scores_under_corruption(counts):
    whole = counts.sum(1)
    missing = np.stack([whole, whole[[2, 2, 2]], whole, whole])
    found = summarise(scores(counts, CorruptedCounts(missing, whole, 5)))["robustness"]
    assert found["seed"] == 5
    tables = found["missing"]
    assert [(t["name"], t["lost"]) for t in tables] == [
        ("EMM skipped", 1.0),
        ("EMM zero-filled", 1.0),
        ("RMM 25 %", 0.25),
        ("RMM 50 %", 0.5),
        ("RMM 75 %", 0.75),
    ]
    assert len({t["protocol"] for t in tables}) == 5
    single = miou(class_iou(whole[0]))
    table = {("r",): single, ("d",): single, ("r", "d"): 1.0}
    for own in tables[:2]:
        assert own["average"] == pytest.approx(average(table))
        assert own["expected_0.1"] == pytest.approx(expected(table, 0.1))
        assert own["absent_zero"]["average"] == pytest.approx(average(table) * 2 / 3)
        assert own["worst"] == {"modalities": ["r"], "miou": pytest.approx(single)}
    assert tables[2]["average"] == tables[2]["worst"]["miou"] == 1.0
    noise = found["noise"]
    assert [own["name"] for own in noise] == ["NM low", "NM mid", "NM high"]
    assert noise[2]["miou"] == 1.0
    assert noise[2]["miou_absent_zero"] == pytest.approx(miou_absent_zero(class_iou(whole[2])))


def test_no_average_over_a_subset_without_a_score(counts):
    holes = counts.sum(1)
    holes[1] = 0
    corrupted = CorruptedCounts(np.stack([holes] * 4), holes, 0)
    found = summarise(scores(counts, corrupted))["robustness"]["missing"][1]
    assert found["average"] is None
    assert found["expected_0.2"] is None
    assert found["worst"]["modalities"] == ["r"]
