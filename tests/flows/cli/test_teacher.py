"""`any2seg teacher`: the table of a comparison, and options that belong together."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from flows.cli.compare import with_teacher
from flows.cli.main import app
from pipeline.errors import ConfigError

CONFIG = """
name = "t"
workspace = "./workspace"
dataset = { adapter = "synthetic", num_train = 3, num_val = 3, num_test = 2, size_px = 64 }
modalities = { rgb = {} }
teacher = { name = "LanguageBind", revision = "main", device = "cpu", batch_size = 8 }
"""
TINY = "languagebind-tiny"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "t.toml"
    path.write_text(CONFIG)
    return path


def run(*words: str) -> list[str]:
    result = CliRunner().invoke(app, ["teacher", *words], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output.splitlines()


def test_a_table_per_sensor_with_chance_and_maps(path: Path, tmp_path: Path) -> None:
    options = ("--compare", TINY, "--compare-set", "teacher.templates=driving", "--samples", "2")
    lines = run(TINY, str(path), *options, "-o", str(tmp_path / "maps"))
    first, second = (line.split() for line in lines if line.startswith("rgb"))
    assert first[:3] == ["rgb", "A", TINY]
    assert second[:3] == ["rgb", "B", TINY]
    assert first[3] == second[3]
    assert first[4:6] != second[4:6]  # zero-shot, in other templates
    assert first[6:] == second[6:]  # neighbours and chance
    assert len(first) == 10
    assert any("in 2 samples of val" in line for line in lines)
    assert lines[-1] == f"2 maps: {tmp_path / 'maps'}"
    assert len(list((tmp_path / "maps").glob("*.rgb.png"))) == 2


def test_a_teacher_without_text_says_so(path: Path) -> None:
    lines = run(
        TINY, str(path), "--compare", "examples.own_teacher:ColourHistogram", "--samples", "2"
    )
    assert lines[-1] == ("B examples.own_teacher:ColourHistogram: no text: zero-shot not possible")
    (row,) = (line.split() for line in lines if line.startswith("rgb") and " B " in line)
    assert row[4:6] == ["-", "-"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["CONFIG"], "only with --compare OTHER"),
        (["--set", "seed=1"], "only with --compare OTHER"),
        (["--compare", TINY], "expected a CONFIG"),
        (["CONFIG", "--compare", TINY, "--set", "teacher.name=x"], "leave it out"),
    ],
)
def test_options_that_belong_together(path: Path, words: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        run(TINY, *(str(path) if word == "CONFIG" else word for word in words))


def test_a_revision_belongs_to_the_name_that_the_config_gives(path: Path) -> None:
    none: dict[str, str | None] = {"dtype": None, "device": None}
    other = with_teacher(path, (), TINY, none).teacher
    assert (other.name, other.revision, other.batch_size) == (TINY, None, 8)
    assert with_teacher(path, (), "LanguageBind", none).teacher.revision == "main"
    given = with_teacher(path, ["teacher.revision=v1"], TINY, none | {"dtype": "float16"}).teacher
    assert (given.revision, given.dtype) == ("v1", "float16")
