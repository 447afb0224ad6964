"""The page's values follow from the run's scores."""

import numpy as np
import pytest

from flows.report.page import page_values, sample_values, share, style_of, verdict
from flows.report.sources import (
    RunRow,
    SampleInputs,
    read_sources,
    scored_rows,
    target_stores,
)
from pipeline.config.config import Config
from pipeline.config.load import load_config, row_config
from pipeline.workspace import Workspace
from student.runs.inputs import open_inputs
from tests.flows.made_up_run import CHANCE, prepare_all, write_run
from tests.flows.report.test_sources import CONFIG


@pytest.fixture(scope="module")
def values(tmp_path_factory: pytest.TempPathFactory) -> dict:
    path = tmp_path_factory.mktemp("page") / "streets.toml"
    path.write_text(CONFIG)
    config = load_config(path)
    manifest = prepare_all(config)
    write_run(config, manifest, base=0.3)
    write_run(row_config(config, "later"), manifest, base=0.25)
    inputs = open_inputs(config, Workspace.of(config), manifest)
    rows, unfinished = scored_rows(inputs)
    sources = read_sources(rows, unfinished, inputs, target_stores(inputs))
    return page_values(sources) | {"main": rows[0]}


def with_scores(row: RunRow, config: Config, **scores: object) -> RunRow:
    return RunRow(
        row.name, config, row.run, row.overrides, {**row.evaluation, **scores}, row.metrics
    )


def test_the_verdict_names_full_mean_worst_and_chance(values: dict) -> None:
    main = values["main"]
    for number in (
        main.evaluation["all"],
        main.evaluation["mean"],
        main.evaluation["worst"]["miou"],
    ):
        assert f"{100 * number:.1f}\u00a0%" in values["verdict"]
    assert f"{100 * CHANCE:.1f}\u00a0%" in values["verdict"]
    assert "all 15 subsets" in values["verdict"]


def test_rendered_scenes_need_no_note_about_the_toy(values: dict) -> None:
    assert values["main"].config.teacher.name == "languagebind-tiny"
    assert values["teacher_note"] == ""


def test_one_modality_has_a_short_verdict(values: dict) -> None:
    main = values["main"]
    config = main.config.model_copy(update={"modalities": {"rgb": main.config.modalities["rgb"]}})
    words = verdict(with_scores(main, config))
    assert words.startswith("From rgb alone")
    assert "worst" not in words


def test_differences_are_to_the_main_run(values: dict) -> None:
    main, later = values["rows"]
    assert [cell["delta"] for cell in main["cells"]] == [None] * 4
    assert [cell["delta"] for cell in later["cells"]] == pytest.approx([-0.05] * 4)
    assert later["seed"] == 3
    assert later["overrides"] == ("seed=3",)


def test_the_table_lists_all_subsets_by_size(values: dict) -> None:
    sizes = [line["name"].count("+") for line in values["subsets"]]
    assert sizes == sorted(sizes)
    assert len(sizes) == 15
    assert all(
        line["scores"][0] == pytest.approx(line["scores"][1] + 0.05) for line in values["subsets"]
    )


def test_columns_are_the_full_set_and_each_single(values: dict) -> None:
    assert values["class_columns"] == ["all 4", "rgb", "depth", "event", "lidar"]
    assert values["class_means"][0] == values["main"].evaluation["all"]


def test_support_is_printed_and_absent_classes_have_none(values: dict) -> None:
    support = values["main"].evaluation["support"]
    assert [line["pixels"] for line in values["classes"]] == support
    assert 0 in support
    for line in values["classes"]:
        assert (line["scores"] == [None] * 5) == (line["pixels"] == 0)


def test_terms_that_were_never_recorded_have_no_chart(values: dict) -> None:
    titles = " ".join(values["curves"])
    assert "Total loss" in titles
    assert "LSCD: between modalities" in titles
    assert "LSCD: classes within a modality" not in titles


def test_a_sample_counts_only_labelled_pixels(values: dict) -> None:
    config = values["main"].config
    label = np.full((4, 4), 255, np.uint8)
    label[0] = 1
    predicted = np.zeros((4, 4), np.uint8)
    predicted[0, :3] = 1
    full = frozenset(config.modalities)
    sample = SampleInputs("k", "fog", "", {}, label, {full: predicted})
    shown = sample_values(sample, config, [(0, 0, 0)] * 25)
    assert shown["tags"] == ["fog"]
    assert shown["figures"][-1]["note"] == "75 %"
    assert [figure["image"] is None for figure in shown["figures"]] == [True] * 4 + [False] + [
        True
    ] * 4 + [False]


@pytest.mark.parametrize(
    ("fraction", "text"),
    [(0.372, "37 %"), (0.0241, "2.4 %"), (0.0003, "0.03 %"), (0.00001, "< 0.01 %")],
)
def test_share_as_text(fraction: float, text: str) -> None:
    assert share(fraction) == text


def test_marks_differ_between_neighbouring_rows() -> None:
    styles = [style_of(index, str(index)) for index in range(7)]
    assert len({style.sign for style in styles}) == 7
