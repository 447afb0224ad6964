"""A name or a config.json decides which family reads a teacher."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pipeline.errors import CheckpointError
from teacher.families.language_bind import LanguageBind
from teacher.open import FAMILIES, open_teacher


@pytest.mark.parametrize("name", ["languagebind-tiny", "LanguageBind", "LanguageBind/some-tower"])
def test_languagebind_by_name(name: str) -> None:
    assert isinstance(open_teacher(name, local_only=True), LanguageBind)


def test_languagebind_folders_of_one_and_of_several_towers(source: Path) -> None:
    assert open_teacher(str(source)).towers == ("image", "depth")
    one = open_teacher(str(source / "LanguageBind_Depth"))
    assert isinstance(one, LanguageBind)
    assert one.towers == ("depth",)


@pytest.mark.parametrize("model_type", ["bert", None, 3, "clip_vision_model"])
def test_another_model_type_is_refused(tmp_path: Path, model_type: object) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": model_type}))
    with pytest.raises(
        CheckpointError, match=r"model_type: expected a supported one \(clip, "
    ) as e:
        open_teacher(str(tmp_path))
    assert str(tmp_path) in str(e.value)


@pytest.mark.parametrize("model_type", FAMILIES)
def test_a_checkpoint_without_processor_settings_is_refused(
    tmp_path: Path, model_type: str
) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": model_type}))
    with pytest.raises(CheckpointError, match=r"expected preprocessor_config\.json"):
        open_teacher(str(tmp_path))
