"""Who sees what: fallback to the image tower, explicit settings, and refusals that name the way out."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline.config.config import Config
from pipeline.config.load import load_config
from pipeline.errors import CheckpointError, ConfigError
from pipeline.modalities import TowerName
from teacher.encoding.tower_inputs import tower_inputs
from teacher.open import open_teacher
from teacher.requirements import require_capable

CONFIG = """
name = "sensors"
workspace = "./workspace"
dataset = { adapter = "folder", root = "./none", classes = ["a", "b"] }
modalities = { rgb = {}, thermal = { kind = "thermal16" }, depth = {}, nir = {}, events = { kind = "event" } }
"""


ALL: tuple[TowerName, ...] = ("image", "depth", "thermal")
Load = Callable[..., Config]


@pytest.fixture
def load(tmp_path: Path) -> Load:
    path = tmp_path / "c.toml"
    path.write_text(CONFIG)
    return lambda *overrides: load_config(path, overrides)


def lines(config: Config, towers: tuple[TowerName, ...]) -> list[str]:
    return [str(seen) for seen in tower_inputs(config, towers).values()]


def test_a_teacher_with_every_tower_sees_stored_values_in_them(load: Load) -> None:
    assert lines(load(), ALL) == [
        "rgb: image tower, as_stored",
        "thermal: thermal tower, as_stored",
        "depth: depth tower, as_stored",
        "nir: image tower, grey_stretched",
        "events: image tower, as_stored",
    ]


def test_the_packaged_teacher_sees_thermal_images_as_grey(load: Load) -> None:
    inputs = list(tower_inputs(load(), open_teacher("languagebind-tiny").towers).values())
    assert str(inputs[1]) == "thermal: image tower, grey_stretched"
    assert [seen.is_plain for seen in inputs] == [True, False, True, False, True]


def test_a_teacher_of_images_alone_gets_everything(load: Load) -> None:
    assert lines(load(), ("image",))[1:3] == [
        "thermal: image tower, grey_stretched",
        "depth: image tower, inverse_depth",
    ]


def test_the_config_wins(load: Load) -> None:
    config = load("modalities.depth.tower=image", "modalities.depth.rendering=metric_depth")
    assert "depth: image tower, metric_depth" in lines(config, ALL)
    config = load("modalities.nir.tower=thermal", "modalities.nir.rendering=grey_stretched")
    assert "nir: thermal tower, grey_stretched" in lines(config, ALL)
    config = load("modalities.nir.rendering=as_stored")
    assert "nir: image tower, as_stored" in lines(config, ALL)


def test_an_explicit_tower_that_the_teacher_lacks_is_refused(load: Load) -> None:
    with pytest.raises(CheckpointError) as refused:
        require_capable(load("modalities.thermal.tower=thermal"))
    assert str(refused.value) == (
        'modalities.thermal.tower = "thermal": teacher languagebind-tiny has no thermal tower, only: '
        "image, depth. Remove it, and the image tower sees thermal grey_stretched; or set "
        "teacher.name to one that has it."
    )


def test_without_an_image_tower_there_is_nothing_to_fall_back_to(load: Load) -> None:
    with pytest.raises(CheckpointError, match=r"modalities\.rgb: .* no image tower, only: depth"):
        tower_inputs(load(), ("depth",))


def test_the_depth_tower_reads_millimetres_alone(load: Load) -> None:
    with pytest.raises(ConfigError, match="the depth tower reads millimetres, kind 'nir'"):
        require_capable(load("modalities.nir.tower=depth"))


def test_the_depth_tower_has_no_rendering(load: Load) -> None:
    with pytest.raises(ConfigError, match=r'rendering = .metric_depth.*depth.tower = "image"'):
        require_capable(load("modalities.depth.rendering=metric_depth"))


def test_a_second_teacher_follows_the_config_where_it_can(load: Load) -> None:
    config = load("modalities.nir.tower=thermal", "modalities.depth.rendering=metric_depth")
    second = tower_inputs(config, ("image",), is_first=False)
    assert str(second["nir"]) == "nir: image tower, grey_stretched"
    assert str(second["depth"]) == "depth: image tower, metric_depth"
    second = tower_inputs(config, ALL, is_first=False)
    assert str(second["nir"]) == "nir: thermal tower, as_stored"
    assert str(second["depth"]) == "depth: depth tower, as_stored"
