"""Lines of scores: the three figures together, groups without a figure, damage only where measured."""

from typing import Any

from flows.report.score_lines import (
    AVERAGES,
    group_lines,
    headline,
    missing_lines,
    noise_lines,
    setting,
)
from tests.flows.made_up_run import damage


def scores(**fields: Any) -> dict[str, Any]:
    figures = {("r",): 0.2, ("d",): None, ("r", "d"): 0.5}
    rows = [
        {
            "modalities": list(s),
            "miou": m,
            "miou_absent_zero": m,
            "per_condition": {"fog": {"miou": m}},
        }
        for s, m in figures.items()
    ]
    return {
        "subsets": rows,
        "conditions": {"fog": {"num_samples": 3}},
        "all": 0.5,
        "mean": 0.35,
        "worst": {"modalities": ["r"], "miou": 0.2},
        "split": "test",
        "num_samples": 3,
        "protocol": "skipped",
        "settings": {"window_px": 0},
        "step": 12,
        "seed": 4,
        "robustness": None,
    } | fields


def test_the_headline_has_all_mean_and_worst() -> None:
    assert headline(scores()) == "all 50.0, mean of 3 subsets 35.0, worst 20.0 (r)"


def test_the_setting_names_split_protocol_window_and_seed() -> None:
    assert setting(scores()) == "split test, 3 samples, skipped, whole images, step 12, seed 4"
    assert "windows of 512 px" in setting(scores(settings={"window_px": 512}))


def test_a_condition_is_all_mean_and_worst_of_the_subsets_that_occur() -> None:
    (line,) = group_lines(scores(), "condition")
    assert (line.name, line.num_samples, line.all, line.mean) == ("fog", 3, 0.5, 0.35)
    assert (line.worst, line.worst_subset) == (0.2, "r")


def test_a_condition_without_labelled_pixels_has_no_score() -> None:
    evaluation = scores()
    for row in evaluation["subsets"]:
        row["per_condition"]["fog"]["miou"] = None
    (line,) = group_lines(evaluation, "condition")
    assert (line.all, line.mean, line.worst) == (None, None, None)


def test_robustness_lines_exist_only_if_measured() -> None:
    assert missing_lines(scores()) == noise_lines(scores()) == []
    evaluation = scores()
    rows = [row | {"miou": row["miou"] or 0.1} for row in evaluation["subsets"]]
    measured = evaluation | {"robustness": damage(rows)}
    lines = missing_lines(measured)
    assert [line.protocol for line in lines] == ["skips", "fills", "quarter"]
    assert all(len(line.averages) == len(AVERAGES) for line in lines)
    assert lines[0].worst_subset == "d"
    assert [line.miou for line in noise_lines(measured)][0] == 0.0567
