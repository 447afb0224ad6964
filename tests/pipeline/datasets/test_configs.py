"""The shipped configs of the published data sets are valid and open their adapter."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.config.load import load_config
from pipeline.datasets import CARDS, open_dataset
from pipeline.errors import DatasetError

CONFIGS = Path(__file__).parents[3] / "configs"


@pytest.mark.parametrize("name", sorted(CARDS))
def test_a_config_opens_its_adapter(name: str) -> None:
    config = load_config(CONFIGS / f"{name}.toml")
    opened = open_dataset(config.dataset, config.specs())
    assert config.dataset.adapter == name
    assert len(opened.palette) == len(opened.classes)
    assert config.evaluate.split in CARDS[name].expected
    assert {spec.kind for spec in config.specs().values()} <= CARDS[name].folders.keys()
    with pytest.raises(DatasetError, match=r"dataset.root: no such folder .*configs"):
        opened.splits()
