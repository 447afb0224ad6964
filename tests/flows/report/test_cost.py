"""Costs in words: units, rates, and the student from which the cached teacher pays."""

from pathlib import Path

import pytest

from flows.report.cost import break_even, cost_values, per_sample
from flows.report.page import style_of
from flows.report.sources import PassCost, read_sources, scored_rows, target_stores
from pipeline.config.config import Config
from pipeline.workspace import Workspace
from student.runs.inputs import open_inputs
from tests.flows.made_up_run import folder_config, prepare_all, write_pictures, write_run


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Config:
    root: Path = tmp_path_factory.mktemp("cost")
    write_pictures(root / "source", {"rgb": "rgb"}, 2, 8, 8)
    return folder_config(root, {"rgb": "rgb"}, ["a", "b"])


def test_milliseconds_per_sample() -> None:
    assert per_sample(3.0, 6) == "500 ms"
    assert per_sample(1.0, 0) == "-"


def test_break_even_counts_students_of_this_length(config: Config) -> None:
    # 40 steps of 2 see 80 samples, for which a teacher in the loop takes as long as for 80 cached ones
    assert "student number 3 " in break_even(10.0, 200, config)
    assert "break-even at 2.5 students" in break_even(10.0, 200, config)
    assert "4.0 s of tower time" in break_even(10.0, 200, config)
    assert "first student already" in break_even(10.0, 80, config)
    assert "first student already" in break_even(10.0, 8, config)


def test_without_a_teacher_there_is_no_break_even(config: Config) -> None:
    lscd = {"inter": 0.0, "intra": 0.0}
    student = config.student.model_copy(
        update={"lscd": config.student.lscd.model_copy(update=lscd)}
    )
    assert break_even(10.0, 80, config.model_copy(update={"student": student})) == ""
    assert break_even(0.0, 0, config) == ""


def test_training_time_is_steps_and_waiting(config: Config) -> None:
    workspace = Workspace.of(config)
    manifest = prepare_all(config)
    write_run(config, manifest)
    inputs = open_inputs(config, workspace, manifest)
    rows, unfinished = scored_rows(inputs)
    sources = read_sources(rows, unfinished, inputs, target_stores(inputs))
    values = cost_values(sources, [style_of(0, "main")])
    # forty steps of 0.3 s and 0.1 s of waiting before each
    assert values["trainings"] == [
        {"row": style_of(0, "main"), "time": "16 s", "steps_s": "2.50", "samples_s": "5.0",
         "waiting": "25.0 %"}
    ]  # fmt: skip
    assert sources.passes == [PassCost("rgb", "image", 6, 1.0, 4 * (2 * 8 * 2 + 4))]
