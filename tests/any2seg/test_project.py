"""Opening a config from Python, and its stages as methods."""

from __future__ import annotations

from pathlib import Path

import pytest

import any2seg
from pipeline.config.load import load_config
from pipeline.errors import ConfigError
from pipeline.shards.manifest import Manifest
from pipeline.workspace import Workspace

TOML = """
name = "door"
workspace = "./work"
modalities = { rgb = {} }
[dataset]
adapter = "synthetic"
num_train = 4
num_val = 2
num_test = 0
size_px = 32
"""


@pytest.fixture
def toml(tmp_path: Path) -> Path:
    path = tmp_path / "door.toml"
    path.write_text(TOML)
    return path


def test_open_gives_the_config_that_load_config_gives(toml: Path) -> None:
    project = any2seg.open(toml, ["train.steps=7"])
    assert project.config == load_config(toml, ["train.steps=7"])
    assert project.config.train.steps == 7
    assert project.workspace.root == (toml.parent / "work").resolve()


def test_a_path_in_a_string_and_a_loaded_config_open_the_same(toml: Path) -> None:
    assert any2seg.open(str(toml)) == any2seg.open(toml) == any2seg.open(load_config(toml))


def test_overrides_of_a_loaded_config_are_refused(toml: Path) -> None:
    with pytest.raises(TypeError, match="pass the TOML file"):
        any2seg.open(load_config(toml), ["train.steps=7"])


def test_a_wrong_config_is_refused(toml: Path) -> None:
    with pytest.raises(ConfigError, match=r"train\.stepz: no such field"):
        any2seg.open(toml, ["train.stepz=7"])


def test_opening_creates_nothing(toml: Path) -> None:
    any2seg.open(toml)
    assert list(toml.parent.iterdir()) == [toml]


def test_a_stage_runs_in_the_workspace(toml: Path) -> None:
    project = any2seg.open(toml)
    report = project.prepare()
    assert report.stage == "prepare"
    manifest = Manifest.load(Workspace.of(project.config).dataset(project.config))
    assert manifest.num_samples == 6


@pytest.mark.parametrize("stage", ["prepare", "precompute", "train", "evaluate", "report"])
def test_every_method_runs_the_stage_of_its_name(
    toml: Path, stage: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    project = any2seg.open(toml)
    given: list[object] = []
    monkeypatch.setattr(
        "flows.stages.load_stage",
        lambda name: lambda *arguments: given.extend((name, *arguments)),
    )
    getattr(project, stage)()
    assert given == [stage, project.config, project.workspace]
