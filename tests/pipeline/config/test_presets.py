"""Presets fill in what is not written, show in the resolved config, and decide a row's fields."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.config.config import Config
from pipeline.config.load import dump_config, load_config, row_config
from pipeline.config.presets import PRESETS
from pipeline.errors import ConfigError

BASE = """
name = "small"
dataset = { adapter = "synthetic" }
modalities = { rgb = {}, depth = {} }
"""


def load(folder: Path, text: str, *overrides: str) -> Config:
    path = folder / "config.toml"
    path.write_text(text)
    return load_config(path, overrides)


def value(config: Config, dotted: str) -> object:
    found: object = config
    for part in dotted.split("."):
        found = getattr(found, part)
    return found


def test_all_presets_name_the_same_fields() -> None:
    assert len({frozenset(fields) for fields in PRESETS.values()}) == 1


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_sets_omitted_fields_in_the_resolved_config(tmp_path: Path, name: str) -> None:
    config = load(tmp_path, BASE, f"preset={name}")
    assert {field: value(config, field) for field in PRESETS[name]} == PRESETS[name]
    again = load(tmp_path, dump_config(config))
    assert again == config


def test_written_fields_win_over_the_preset(tmp_path: Path) -> None:
    text = BASE + 'preset = "any2seg-paper"\n[train]\nauxiliary_weight = 0.25\n'
    config = load(tmp_path, text, "student.lscd.intra=0.5")
    assert config.train.auxiliary_weight == 0.25
    assert config.student.lscd.intra == 0.5
    assert config.train.subset_draw == "uniform"


def test_the_defaults_are_the_robust_preset(tmp_path: Path) -> None:
    config = load(tmp_path, BASE)
    assert config.preset is None
    assert {field: value(config, field) for field in PRESETS["robust"]} == PRESETS["robust"]


def test_a_rows_preset_sets_all_preset_fields_but_the_rows_own(tmp_path: Path) -> None:
    text = (
        BASE
        + """
preset = "robust"
train = { auxiliary_weight = 0.25, steps = 7 }
compare = { paper = ["preset=any2seg-paper", "student.lscd.inter=0.01"], wide = ["student.head_channels=9"] }
"""
    )
    config = load(tmp_path, text)
    paper, wide = row_config(config, "paper"), row_config(config, "wide")
    wanted = PRESETS["any2seg-paper"] | {"student.lscd.inter": 0.01}
    assert {field: value(paper, field) for field in wanted} == wanted
    assert paper.train.steps == 7
    assert wide.train.auxiliary_weight == 0.25
    assert wide.preset == "robust"


def test_an_unknown_preset_is_named(tmp_path: Path) -> None:
    with pytest.raises(
        ConfigError, match=r"preset: expected one of any2seg-paper, robust.*'rubust'"
    ):
        load(tmp_path, BASE, "preset=rubust")


def test_a_value_instead_of_a_table_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="student"):
        load(tmp_path, BASE + "student = 3\n", "preset=robust")
