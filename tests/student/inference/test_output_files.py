"""A prediction replaces its own earlier results and nothing else."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from pipeline.errors import ConfigError
from student.inference.output_files import RECORD, Outputs, Scene, plan_outputs, reserve


def scene(folder: Path, stem: str = "a", sensor: str = "rgb") -> Scene:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{stem}.png"
    path.write_bytes(b"an image")
    return Scene(stem, {sensor: path})


def predict_once(scenes: list[Scene], folder: Path, outputs: Outputs = Outputs()) -> None:  # noqa: B008
    planned = plan_outputs(scenes, folder, outputs)
    reserve(folder, planned)
    for name in planned:
        (folder / name).write_bytes(b"a result")


def test_every_file_of_a_scene_is_planned(tmp_path: Path) -> None:
    one = scene(tmp_path / "in")
    assert set(plan_outputs([one], tmp_path / "out", Outputs(logits=True))) == {
        "a.png",
        "a_overlay.png",
        "a.npy",
    }
    assert set(plan_outputs([one], tmp_path / "out", Outputs(overlay=False))) == {"a.png"}


@pytest.mark.parametrize("spelling", ["in", "in/../in", "link"])
def test_the_folder_of_an_input_is_refused_however_it_is_written(
    tmp_path: Path, spelling: str
) -> None:
    one = scene(tmp_path / "in")
    os.symlink(tmp_path / "in", tmp_path / "link")
    with pytest.raises(ConfigError, match=r"holds the input a\.png of rgb.*-o"):
        plan_outputs([one], tmp_path / spelling, Outputs())
    assert sorted(path.name for path in (tmp_path / "in").iterdir()) == ["a.png"]


def test_the_folder_of_any_sensor_is_refused(tmp_path: Path) -> None:
    files = scene(tmp_path / "rgb").files | scene(tmp_path / "nir", sensor="nir").files
    with pytest.raises(ConfigError, match="of nir"):
        plan_outputs([Scene("a", files)], tmp_path / "nir", Outputs())


def test_the_same_scene_may_be_predicted_again_and_from_more_sensors(tmp_path: Path) -> None:
    one = scene(tmp_path / "rgb")
    predict_once([one], tmp_path / "out")
    predict_once([one], tmp_path / "out", Outputs(logits=True))
    more = Scene("a", one.files | scene(tmp_path / "nir", sensor="nir").files)
    predict_once([more], tmp_path / "out")
    record = (tmp_path / "out" / RECORD).read_text(encoding="utf-8")
    assert all(str(path.resolve()) in record for path in more.files.values())
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        *("a.npy", "a.png", "a_overlay.png"),
        RECORD,
    ]


def test_a_result_of_another_sample_stays(tmp_path: Path) -> None:
    predict_once([scene(tmp_path / "monday")], tmp_path / "out")
    with pytest.raises(ConfigError, match=r"a\.png exists already, made from .*monday/a\.png"):
        plan_outputs([scene(tmp_path / "tuesday")], tmp_path / "out", Outputs())
    predict_once([scene(tmp_path / "tuesday", "b")], tmp_path / "out")
    with pytest.raises(ConfigError, match="monday"):
        plan_outputs([scene(tmp_path / "tuesday")], tmp_path / "out", Outputs())


def test_a_file_that_is_no_prediction_stays(tmp_path: Path) -> None:
    labels = scene(tmp_path / "label")
    with pytest.raises(ConfigError, match="something that is no prediction"):
        plan_outputs([scene(tmp_path / "rgb")], next(iter(labels.files.values())).parent, Outputs())


def test_two_scenes_of_one_file_are_refused(tmp_path: Path) -> None:
    scenes = [scene(tmp_path / "in", "a"), scene(tmp_path / "in", "a_overlay")]
    with pytest.raises(ConfigError, match=r"a_overlay\.png: two scenes would write it"):
        plan_outputs(scenes, tmp_path / "out", Outputs())
    assert len(plan_outputs(scenes, tmp_path / "out", Outputs(overlay=False))) == 2


@pytest.mark.parametrize("text", ["no json", "[1]", '{"a.png": 1}'])
def test_a_foreign_record_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / RECORD).write_text(text)
    with pytest.raises(ConfigError, match="not a record of predictions"):
        plan_outputs([scene(tmp_path / "in")], tmp_path / "out", Outputs())


def test_a_file_in_place_of_the_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("a file")
    with pytest.raises(ConfigError, match="expected a folder for the results, found a file"):
        plan_outputs([scene(tmp_path / "in")], tmp_path / "out", Outputs())
    with pytest.raises(ConfigError, match="cannot be written"):
        reserve(tmp_path / "out" / "deeper", {})
