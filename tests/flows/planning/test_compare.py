"""Two teachers on rendered scenes: equal teachers give equal numbers, and chance is stated."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from flows.planning.compare import Drawn, TeacherReport, draw_samples, measure_teacher
from flows.planning.compare_maps import LINE_PX, PANEL_PX, write_maps
from pipeline.config.config import Config
from pipeline.config.data import ModalityConfig
from pipeline.errors import DatasetError
from pipeline.workspace import Workspace

OWN = "examples.own_teacher:ColourHistogram"


def config_of(folder: Path, teacher: dict[str, Any] | None = None, **data: int) -> Config:
    scenes = {"num_train": 8, "num_val": 8, "num_test": 0, "size_px": 64, **data}
    return Config.model_validate(
        {
            "name": "scenes",
            "workspace": str(folder / "workspace"),
            "dataset": {"adapter": "synthetic", **scenes},
            "modalities": {"rgb": {}, "event": {}},
            "teacher": {"device": "cpu", "batch_size": 4, **(teacher or {})},
        }
    )


def measure(config: Config, drawn: Drawn) -> TeacherReport:
    return measure_teacher(config, Workspace.of(config), drawn)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("compare")


@pytest.fixture(scope="module")
def drawn(folder: Path) -> Drawn:
    return draw_samples(config_of(folder), 6)


@pytest.fixture(scope="module")
def tiny(folder: Path, drawn: Drawn) -> TeacherReport:
    return measure(config_of(folder), drawn)


@pytest.fixture(scope="module")
def own(folder: Path, drawn: Drawn) -> TeacherReport:
    return measure(config_of(folder, {"name": OWN}), drawn)


def test_samples_are_a_seeded_draw_from_val_and_train(folder: Path, drawn: Drawn) -> None:
    assert (len(drawn.known), len(drawn.held_out), drawn.split) == (6, 6, "val")
    assert {sample.split for sample in drawn.known} == {"train"}
    assert {sample.split for sample in drawn.held_out} == {"val"}
    assert draw_samples(config_of(folder), 6) == drawn
    assert draw_samples(config_of(folder), 6, seed=1) != drawn


def test_without_val_half_of_train_is_held_out(folder: Path) -> None:
    alone = draw_samples(config_of(folder, num_val=0), 50)
    assert (len(alone.known), len(alone.held_out), alone.split) == (4, 4, "train")
    keys = [{sample.key for sample in part} for part in (alone.known, alone.held_out)]
    assert keys[0].isdisjoint(keys[1])


def test_a_single_sample_cannot_be_compared_on(folder: Path) -> None:
    with pytest.raises(DatasetError, match="found 1 in train"):
        draw_samples(config_of(folder, num_val=0, num_train=1), 50)


def test_equal_teachers_give_equal_numbers(folder: Path, drawn: Drawn, tiny: TeacherReport) -> None:
    again = measure(config_of(folder), drawn)
    for name, sensor in tiny.sensors.items():
        other = again.sensors[name]
        assert (sensor.zero_shot, sensor.neighbours) == (other.zero_shot, other.neighbours)
        assert all(np.array_equal(sensor.maps[key], other.maps[key]) for key in sensor.maps)


def test_other_templates_change_zero_shot_alone(
    folder: Path, drawn: Drawn, tiny: TeacherReport
) -> None:
    driving = measure(config_of(folder, {"templates": "driving"}), drawn)
    assert any(
        driving.sensors[name].zero_shot != tiny.sensors[name].zero_shot for name in tiny.sensors
    )
    for name in tiny.sensors:
        assert driving.sensors[name].neighbours == tiny.sensors[name].neighbours


def test_the_packaged_teacher_is_far_above_chance_on_its_own_scenes(tiny: TeacherReport) -> None:
    assert list(tiny.sensors) == ["rgb", "event"]
    for sensor in tiny.sensors.values():
        assert sensor.zero_shot is not None
        assert sensor.num_patches > 200
        for measured in (sensor.zero_shot, sensor.neighbours):
            assert measured.overall > 1.3 * sensor.chance.overall
            assert measured.class_mean > 1.3 * sensor.chance.class_mean
    assert tiny.notes == []


def test_no_shard_and_no_target_is_written(folder: Path, tiny: TeacherReport) -> None:
    assert tiny.sensors
    assert {path.name for path in (folder / "workspace").iterdir()} == {"cache"}


def test_a_teacher_without_text_is_compared_by_neighbours(own: TeacherReport) -> None:
    assert list(own.notes) == ["no text: zero-shot not possible"]
    sensor = own.sensors["rgb"]
    assert sensor.zero_shot is None
    assert sensor.neighbours.overall > sensor.chance.overall
    assert next(iter(sensor.maps.values())).shape == (4, 4)


def test_a_sensor_without_a_tower_is_measured_as_it_is_rendered(
    folder: Path, drawn: Drawn, own: TeacherReport
) -> None:
    config = config_of(folder, {"name": OWN})
    depths = []
    for rendering in (None, "inverse_depth", "as_stored"):
        depth = ModalityConfig(rendering=rendering)
        other = config.model_copy(update={"modalities": {"depth": depth}})
        depths.append(measure(other, drawn).sensors["depth"].neighbours)
    assert depths[0] == depths[1] != depths[2]
    assert own.sensors.keys() == {"rgb", "event"}


def test_maps_show_what_both_teachers_say(
    tmp_path: Path, folder: Path, drawn: Drawn, tiny: TeacherReport, own: TeacherReport
) -> None:
    files = write_maps(tmp_path / "maps", config_of(folder), drawn, (tiny, own))
    assert len(files) == 2 * len(drawn.held_out)
    key = drawn.held_out[0].key
    sheet = np.asarray(Image.open(tmp_path / "maps" / f"{key}.rgb.png"))
    palette = np.array(_palette())
    for column, report in ((2, tiny), (3, own)):
        classes = report.sensors["rgb"].maps[key]
        x, cell = 8 + column * (PANEL_PX + 8), PANEL_PX // len(classes)
        middle = sheet[LINE_PX + cell // 2 :: cell, x + cell // 2 :: cell]
        assert (middle[: len(classes), : len(classes)] == palette[classes]).all()


def test_a_map_of_a_narrower_field_lies_in_the_middle_of_its_panel(
    tmp_path: Path, folder: Path, drawn: Drawn, tiny: TeacherReport
) -> None:
    sensors = {name: replace(sensor, field=0.5) for name, sensor in tiny.sensors.items()}
    write_maps(tmp_path, config_of(folder), drawn, (tiny, replace(tiny, sensors=sensors)))
    sheet = np.asarray(Image.open(tmp_path / f"{drawn.held_out[0].key}.rgb.png"))
    x, quarter = 8 + 3 * (PANEL_PX + 8), PANEL_PX // 4
    panel = sheet[LINE_PX : LINE_PX + PANEL_PX, x : x + PANEL_PX]
    inner = panel[quarter:-quarter, quarter:-quarter]
    assert (panel.sum(axis=2) > 0).sum() == (inner.sum(axis=2) > 0).sum() == inner[..., 0].size


def _palette() -> tuple[tuple[int, int, int], ...]:
    from pipeline.datasets.deliver_classes import DELIVER_PALETTE

    return DELIVER_PALETTE
