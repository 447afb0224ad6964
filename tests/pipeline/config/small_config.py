"""A small config as TOML, loaded with overrides."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.config.config import Config
from pipeline.config.load import load_config
from pipeline.errors import ConfigError

BASE = """
name = "small"
[dataset]
adapter = "folder"
root = "./pictures"
classes = ["soil", "crop"]
[modalities.rgb]
[modalities.ir]
kind = "nir"
"""


def write(folder: Path, text: str = BASE) -> Path:
    path = folder / "small.toml"
    path.write_text(text)
    return path


def load(folder: Path, *overrides: str, text: str = BASE) -> Config:
    return load_config(write(folder, text), overrides)


def message(folder: Path, *overrides: str, text: str = BASE) -> str:
    with pytest.raises(ConfigError) as error:
        load(folder, *overrides, text=text)
    return str(error.value)
