"""The toy is named wherever it would teach images that are not rendered scenes, and nowhere else."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.config.load import load_config
from pipeline.config.teacher import TOY_TEACHER, TeacherConfig
from pipeline.config.toy_teacher import toy_teacher_note
from tests.pipeline.config.small_config import load

CONFIGS = Path(__file__).parents[3] / "configs"
RENDERED = 'name = "r"\ndataset = { adapter = "synthetic" }\nmodalities = { rgb = {} }\n'


def test_one_line_says_what_the_toy_has_seen_and_what_to_set(tmp_path: Path) -> None:
    note = toy_teacher_note(load(tmp_path))
    assert "\n" not in note
    for words in (TOY_TEACHER, "2.3 M parameters", "rendered street scenes", "small"):
        assert words in note
    assert 'teacher = { name = "LanguageBind" }' in note
    assert "CLIP, SigLIP or DINO" in note


def test_silent_on_rendered_scenes_and_with_another_teacher(tmp_path: Path) -> None:
    assert toy_teacher_note(load(tmp_path, text=RENDERED)) == ""
    assert toy_teacher_note(load(tmp_path, "teacher.name=LanguageBind")) == ""


def test_the_default_teacher_is_the_toy() -> None:
    assert TeacherConfig().name == TOY_TEACHER


def test_the_stated_size_is_that_of_the_packaged_towers() -> None:
    """Two vision towers and the text half, which both files carry."""
    from safetensors import safe_open

    from teacher.checkpoints.locate import find_tower

    counts = []
    for tower in ("image", "depth"):
        with safe_open(find_tower(TOY_TEACHER, tower).weights[0], "np") as file:  # type: ignore[arg-type]
            counts.append({name: file.get_tensor(name).size for name in file.keys()})  # noqa: SIM118
    image, depth = counts
    vision_of_depth = sum(size for name, size in depth.items() if not name.startswith("text"))
    assert round((sum(image.values()) + vision_of_depth) / 1e6, 1) == 2.3


@pytest.mark.parametrize("name", ["deliver", "mcubes", "muses"])
def test_configs_of_published_data_name_a_real_teacher(name: str) -> None:
    config = load_config(CONFIGS / f"{name}.toml")
    assert (config.teacher.name, config.teacher.dtype) == ("LanguageBind", "bfloat16")
    assert toy_teacher_note(config) == ""


def test_the_demo_keeps_the_toy() -> None:
    config = load_config(CONFIGS / "demo.toml")
    assert config.teacher.name == TOY_TEACHER
    assert toy_teacher_note(config) == ""
