"""Tables of conditions, corner cases and corrupted inputs: every line from the scores."""

from dataclasses import replace

import pytest

from flows.report.page import style_of
from flows.report.report import render
from flows.report.sources import RunRow, read_sources, scored_rows, target_stores
from flows.report.tables import group_tables, robust_values
from pipeline.config.load import load_config
from pipeline.workspace import Workspace
from student.runs.inputs import open_inputs
from tests.flows.made_up_run import prepare_all, write_run
from tests.flows.report.test_sources import CONFIG


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> list[RunRow]:
    path = tmp_path_factory.mktemp("tables") / "streets.toml"
    path.write_text(CONFIG.replace("num_pictures = 4", "num_pictures = 0, robustness = true"))
    config = load_config(path)
    manifest = prepare_all(config)
    write_run(config, manifest)
    return scored_rows(open_inputs(config, Workspace.of(config), manifest))[0]


def test_conditions_and_corner_cases_end_with_mean_and_worst(rows: list[RunRow]) -> None:
    names = {"all 4": tuple(rows[0].config.modalities), "depth": ("depth",)}
    tables = group_tables(rows[0], names)
    assert [table["title"] for table in tables] == ["Conditions", "Corner cases"]
    scores = rows[0].evaluation
    for table, field in zip(tables, ("condition", "corner_case"), strict=True):
        assert {group.name for group in table["groups"]} == set(scores[f"{field}s"])
        lines = {line["name"]: line for line in table["lines"]}
        assert list(lines) == ["all 4", "depth", "mean of 15 subsets", "worst subset"]
        for column, group in enumerate(table["groups"]):
            figures = [row[f"per_{field}"][group.name]["miou"] for row in scores["subsets"]]
            assert lines["all 4"]["scores"][column] == figures[-1]
            assert lines["mean of 15 subsets"]["scores"][column] == pytest.approx(sum(figures) / 15)
            assert lines["worst subset"]["scores"][column] == min(figures)
        assert lines["worst subset"]["overall"] == scores["worst"]["miou"]
    assert sum(group.num_samples for group in tables[0]["groups"]) == 5


def test_both_protocols_and_every_subset_are_shown(rows: list[RunRow]) -> None:
    robust = robust_values(rows, [style_of(0, "main")])["robust"]
    (run,) = robust["runs"]
    assert [(line.name, line.protocol) for line in run["missing"]] == [
        ("EMM skipped", "skips"),
        ("EMM zero-filled", "fills"),
        ("RMM 25 %", "quarter"),
    ]
    assert [line.name for line in run["noise"]] == ["NM low", "NM mid", "NM high"]
    assert run["clean"] == rows[0].evaluation["all"]
    assert robust["seeds"] == "9"
    assert len(robust["subsets"]) == 15
    first = robust["subsets"][0]["scores"]
    assert first == pytest.approx([first[0], first[0] - 0.01, first[0] - 0.02])


def test_without_such_scores_there_is_no_table(rows: list[RunRow]) -> None:
    main = rows[0]
    plain = replace(main, evaluation={**main.evaluation, "robustness": None})
    assert robust_values([plain], [style_of(0, "main")]) == {"robust": None}
    half = robust_values([plain, main], [style_of(0, "main"), style_of(1, "other")])["robust"]
    assert [run["row"].name for run in half["runs"]] == ["other"]
    assert half["subsets"] == []


def test_the_page_shows_corruptions_or_how_to_measure_them(rows: list[RunRow]) -> None:
    main = rows[0]
    inputs = open_inputs(main.config, Workspace.of(main.config))
    sources = read_sources(rows, [], inputs, target_stores(inputs))
    page = render(sources)
    for words in (
        "EMM zero-filled",
        "fills",
        "RMM 25 %",
        "quarter",
        "NM high",
        "seed of the corruption 9",
    ):
        assert words in page
    without = {**main.evaluation, "robustness": None}
    plain = render(replace(sources, rows=[replace(main, evaluation=without)]))
    assert "EMM zero-filled" not in plain
    assert "evaluate.robustness=true" in plain
