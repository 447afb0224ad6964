"""The configuration: errors that name field and allowed values, checks across tables."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

from pipeline.config.student import LscdConfig
from pipeline.errors import ConfigError
from pipeline.modalities import KINDS
from tests.pipeline.config.small_config import BASE, load, message


@pytest.mark.parametrize(
    ("override", "parts"),
    [
        ("train.stepz=3", ["train.stepz: no such field; did you mean steps?"]),
        ("traim.steps=3", ["traim: no such field; did you mean train?"]),
        (
            "train.xyzzy=3",
            ["train.xyzzy: no such field; expected one of", "batch_size, blur, checkpoint"],
        ),
        ("train.steps=0", ["train.steps", "greater than 0", "found 0"]),
        ("train.steps=many", ["train.steps", "valid integer", "found 'many'"]),
        ("teacher.dtype=float64", ["teacher.dtype", "'float32', 'bfloat16' or 'float16'"]),
        ("teacher.outputs=['patch']", ["teacher.outputs", '["embedding", "patch"]']),
        ("dataset.adapter=zip", ["adapter = 'zip'", "folder", "synthetic"]),
        ("dataset.rooot=x", ["dataset", "rooot: no such field"]),
        ("dataset.classes=['a','a']", ["dataset", "'a' is listed twice"]),
        ("modalities.rgb.kind=radar", ["modalities.rgb.kind", "unknown kind 'radar'", "thermal"]),
        ("modalities.rgb.tower=sonar", ["modalities.rgb.tower", "'image'", "'thermal'"]),
        ("modalities.rgb.rendering=blue", ["modalities.rgb.rendering", "'grey_stretched'"]),
        (
            "modalities.rgb.rendering=grey_stretched",
            ["modalities.rgb.rendering = 'grey_stretched'", "'rgb' has 3 channel", "of as_stored"],
        ),
        ("modalities.ir.rendering=inverse_depth", ["one of as_stored, grey_stretched"]),
        ("modalities.label.kind=rgb", ["modalities.label", "other than label"]),
        ("student.lscd.dense=1.0", ["student.lscd.dense", "teacher.outputs"]),
        ("student.lscd.language=0.1", ["student.lscd.language: no such field; expected", "intra"]),
        ("student.lscd={prompts='one_hot', dense=1}", ["student.lscd", "one_hot", "dense to 0"]),
        ("compare.x=['teacher.name=a']", ["compare.x", "student.*, train.*, seed or preset"]),
        ("name=a b", ["name", "pattern"]),
        ("train.steps", ["--set train.steps: expected FIELD=VALUE"]),
        ("name.x=3", ["'name' is a value, not a table"]),
    ],
)
def test_an_error_names_the_field_and_what_is_allowed(
    tmp_path: Path, override: str, parts: list[str]
) -> None:
    found = message(tmp_path, override)
    for part in parts:
        assert part in found


def test_a_missing_field_is_named(tmp_path: Path) -> None:
    assert "dataset: missing" in message(tmp_path, text='name = "x"\n[modalities.rgb]\n')
    assert "root: missing" in message(tmp_path, text=BASE.replace('root = "./pictures"', ""))


def test_specs_resolve_kind_tower_and_range(tmp_path: Path) -> None:
    config = load(tmp_path, "modalities.ir.tower=thermal", "modalities.ir.max_value=100.0")
    specs = config.specs()
    assert list(specs) == ["rgb", "ir"]
    assert specs["rgb"] == KINDS["rgb"]
    assert (specs["ir"].kind, specs["ir"].tower, specs["ir"].max_value) == ("nir", "thermal", 100.0)


def test_configs_are_immutable(tmp_path: Path) -> None:
    config = load(tmp_path)
    with pytest.raises(ValidationError, match="frozen"):
        config.seed = 4  # type: ignore[misc]


def test_lscd_is_active_if_any_term_has_weight() -> None:
    off = LscdConfig(inter=0.0, intra=0.0, dense=0.0)
    assert not off.active
    assert off.model_copy(update={"dense": 0.1}).active


def test_pooled_distillation_of_crops_is_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"train\.crop_px.*lscd\.inter"):
        load(tmp_path, "train.crop_px=64", "student.lscd.inter=0.05")
    assert load(tmp_path, "train.crop_px=64", "student.lscd.inter=0").train.crop_px == 64
    with pytest.raises(ConfigError, match=r"train\.scale.*lscd\.inter"):
        load(tmp_path, "train.scale=[0.5, 2.0]", "student.lscd.inter=0.05")
    with pytest.raises(ConfigError, match=r"train\.scale.*teacher\.views"):
        load(tmp_path, "train.scale=[0.5, 2.0]", "teacher.views=2", "train.crop_px=64")
    with pytest.raises(ConfigError, match=r"smallest, largest.*2\.0, 0\.5"):
        load(tmp_path, "train.scale=[2.0, 0.5]", "student.lscd.inter=0")
