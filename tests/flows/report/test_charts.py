"""Charts: whole SVG in the page's colours, in the right order, with the numbers in words."""

import itertools
import re
import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest

from flows.report.charts import (
    Curve,
    SubsetScores,
    colour_map,
    curve_chart,
    moving_band,
    row_colour,
    subset_chart,
    subset_order,
)


def scores(names: str, base: float) -> dict[tuple[str, ...], float | None]:
    """A score for every non-empty subset of the letters in `names`."""
    subsets = [s for n in range(1, len(names) + 1) for s in itertools.combinations(names, n)]
    return {subset: base + 0.02 * index for index, subset in enumerate(subsets)}


def curve(index: int, values: list[float]) -> Curve:
    return Curve(f"row-{index}", index, np.arange(1.0, len(values) + 1), np.array(values))


def check_svg(text: str) -> ElementTree.Element:
    root = ElementTree.fromstring(text)
    assert not re.search(r"#0000[0-9a-f]{2}", text)
    assert "DejaVu" not in text
    assert "<style" not in text
    assert "<metadata" not in text
    return root


def test_subsets_are_sorted_by_size_then_score() -> None:
    main = {("a",): 0.1, ("b",): 0.3, ("a", "b"): 0.2, ("c",): None}
    assert subset_order(list(main), main) == [("b",), ("a",), ("c",), ("a", "b")]


@pytest.mark.parametrize("names", ["a", "ab", "abcdef"])
@pytest.mark.parametrize("chance", [None, 0.05])
def test_one_line_and_number_a_subset(names: str, chance: float | None) -> None:
    rows = [SubsetScores("main", scores(names, 0.1)), SubsetScores("other", scores(names, 0.2))]
    text = subset_chart(list(names), rows, chance)
    root = check_svg(text)
    words = ["".join(e.itertext()) for e in root.iter("{http://www.w3.org/2000/svg}text")]
    for value in rows[0].scores.values():
        assert f"{100 * (value or 0):.1f}" in words
    assert ("chance 5.0" in words) == (chance is not None)
    assert "Other rows: other." in root.attrib["aria-label"]
    assert "var(--row-0)" in text
    assert "var(--row-1)" in text


def test_a_subset_without_a_score_has_no_number() -> None:
    text = subset_chart(["a"], [SubsetScores("main", {("a",): None})], 0.1)
    words = [e.text for e in check_svg(text).iter("{http://www.w3.org/2000/svg}text")]
    assert "-" in words


def test_the_moving_band_equals_a_naive_loop() -> None:
    values = np.random.default_rng(1).normal(size=150)
    values[7] = np.nan
    steps, mean, low, high = moving_band(np.arange(150.0), values)
    good = [(step, value) for step, value in enumerate(values) if np.isfinite(value)]
    assert len(steps) == 149
    for index, step in enumerate(steps):
        end = [s for s, _ in good].index(int(step))
        window = [value for _, value in good[max(0, end - 4) : end + 1]]
        assert mean[index] == pytest.approx(np.mean(window))
        assert low[index] == pytest.approx(np.percentile(window, 10))
        assert high[index] == pytest.approx(np.percentile(window, 90))


def test_a_long_curve_is_thinned_but_keeps_its_ends() -> None:
    steps, *_ = moving_band(np.arange(20_000.0), np.ones(20_000))
    assert len(steps) <= 160
    assert (steps[0], steps[-1]) == (0, 19_999)


@pytest.mark.parametrize("values", [[2.0], [1.0, float("nan"), 3.0], [5.0] * 300])
def test_curves_of_any_length_are_drawn(values: list[float]) -> None:
    text = curve_chart("loss", "Total loss", [curve(0, values), curve(1, values[:1])])
    label = check_svg(text).attrib["aria-label"]
    assert label.startswith("Total loss over training steps: row-0 ends at")
    assert "row-1 ends at" in label


def test_two_charts_share_no_id_and_the_same_numbers_give_the_same_text() -> None:
    curves = [curve(0, [1.0, 2.0]), curve(1, [2.0, 1.0])]
    first, second = curve_chart("ce", "A", curves), curve_chart("inter", "A", curves)
    ids = re.findall(r' id="([^"]+)"', first), re.findall(r' id="([^"]+)"', second)
    assert ids[0]
    assert not set(ids[0]) & set(ids[1])
    assert set(re.findall(r"#([\w]+)[\")]", first)) <= set(ids[0])
    assert curve_chart("ce", "A", curves) == first


def test_row_colours_repeat_without_the_main_one() -> None:
    names = [row_colour(index) for index in range(8)]
    assert names[0] == "--row-0"
    assert "--row-0" not in names[1:]
    assert names[1] == names[6]


def test_the_colour_map_has_three_channels() -> None:
    colours = colour_map("viridis", np.array([[0.0, 1.0]]))
    assert colours.shape == (1, 2, 3)
    assert colours[0, 1].sum() > colours[0, 0].sum()
