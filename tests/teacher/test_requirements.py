"""Settings that need a text tower are refused by name where the teacher has none."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pipeline.config.config import Config
from pipeline.errors import ConfigError
from teacher.requirements import lacks_text, require_capable
from tests.teacher.families.tiny_checkpoints import write_clip, write_dino


def make(teacher: str, lscd: dict[str, Any], **more: Any) -> Config:
    return Config.model_validate(
        {
            "name": "some",
            "workspace": "/nowhere",
            "dataset": {"adapter": "synthetic"},
            "modalities": {"rgb": {}},
            "teacher": {"name": teacher, "outputs": ["embedding", "patch"]},
            "student": {"lscd": lscd},
            **more,
        }
    )


@pytest.fixture(scope="module")
def dino(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("dino")
    write_dino(folder)
    return str(folder)


@pytest.mark.parametrize(
    ("lscd", "more", "message"),
    [
        (
            {"intra": 0.1},
            {},
            r"student\.lscd\.intra = 0\.1 \(set it to 0, or prompts = \"one_hot\"\)",
        ),
        ({"intra": 0.1, "dense": 0.1}, {}, r"student\.lscd\.intra = 0\.1 \(set it to 0\)"),
        (
            {"intra": 0, "dense": 0.1, "dense_distance": "kl"},
            {},
            r'student\.lscd\.dense_distance = "kl" \(set it to "cosine"\)',
        ),
        ({"intra": 0}, {"descriptions": {"source": "from_labels"}}, r"descriptions \(remove"),
        (
            {"intra": 0},
            {"compare": {"words": ["student.lscd.intra=0.2"]}},
            r"compare\.words: student\.lscd\.intra = 0\.2",
        ),
    ],
)
def test_what_needs_prompts_is_refused_by_name(
    dino: str, lscd: dict[str, Any], more: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        require_capable(make(dino, lscd, **more))
    assert "has no text tower" in str(caught.value)


def test_dense_and_relational_terms_are_allowed(dino: str) -> None:
    config = make(dino, {"inter": 0.1, "intra": 0, "dense": 0.1})
    require_capable(config)
    require_capable(make(dino, {"intra": 0.1, "prompts": "one_hot"}))
    assert lacks_text(config)


def test_a_timm_model_has_no_text_whether_it_is_there_or_not() -> None:
    with pytest.raises(ConfigError, match="has no text tower"):
        require_capable(make("timm/vit_small_patch14_dinov2.lvd142m", {"intra": 0.1}))


def test_teachers_with_text_and_teachers_elsewhere_pass(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_clip(tmp_path)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "empty"))
    for name in (str(tmp_path), "languagebind-tiny", str(tmp_path / "elsewhere")):
        config = make(name, {"intra": 0.1})
        require_capable(config)
        assert not lacks_text(config)
