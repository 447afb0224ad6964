"""What config.json means: upstream's defaults and override rule."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pipeline.errors import CheckpointError
from teacher.checkpoints.hub_config import parse_config, read_config


def test_every_golden_case_of_a_tower(shared: Path) -> None:
    """Those of video and audio are in tests/examples."""
    folder = shared / "languagebind" / "config_cases"
    paths = sorted([*folder.glob("image_*.json"), *folder.glob("depth_*.json")])
    assert len(paths) >= 2
    for path in paths:
        case = json.loads(path.read_text())
        expected = case["effective_in_upstream"]
        found = parse_config(case["config_json"], path.name)
        assert found.projection_dim == expected["projection_dim"]
        assert found.logit_scale_init == expected["logit_scale_init_value"]
        for section, values in (("vision", found.vision), ("text", found.text)):
            wanted = expected[section]
            assert {name: values[name] for name in wanted} == wanted, path.name


def test_a_vision_config_dict_is_authoritative() -> None:
    """The Huge checkpoint's rule: what the dict lacks falls back to defaults, not to the section."""
    raw = {
        "model_type": "LanguageBindImage",
        "vision_config": {"hidden_size": 8, "num_frames": 4, "clip_type": "vl_new"},
        "vision_config_dict": {"hidden_size": 16},
    }
    config = parse_config(raw, "here")
    assert config.vision["hidden_size"] == 16
    assert config.vision["num_frames"] == 1
    assert config.vision["clip_type"] == "vl_new"


def test_absent_fields_are_the_class_defaults() -> None:
    config = parse_config({"model_type": "LanguageBindDepth"}, "here")
    assert (config.vision["lora_r"], config.vision["lora_alpha"]) == (2, 16)
    assert config.vision["max_depth"] == 10
    assert "lora_r" not in config.stated


@pytest.mark.parametrize("size", [224, [224, 224]])
def test_image_size_may_be_a_list(size: object) -> None:
    raw = {"model_type": "LanguageBindImage", "vision_config": {"image_size": size}}
    config = parse_config(raw | {"projection_dim": 768}, "here")
    assert config.input_px == (224, 224)
    assert config.grid == (7, 7)


def test_a_grid_may_be_rectangular() -> None:
    vision = {"image_size": [126, 1036], "patch_size": 14}
    config = parse_config({"model_type": "LanguageBindImage", "vision_config": vision}, "here")
    assert config.grid == (9, 74)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "expected a readable config.json"),
        ("[]", "expected a JSON object"),
        (
            '{"model_type": "bert"}',
            r"expected a supported one \(LanguageBindImage, .* found 'bert'",
        ),
        ('{"model_type": "LanguageBindAudio"}', "LanguageBindThermal.*, found 'LanguageBindAudio'"),
    ],
)
def test_other_files_are_refused(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(CheckpointError, match=message):
        read_config(tmp_path / "config.json")
