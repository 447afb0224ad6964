"""Source samples and adapter options: what makes a sample new, what makes a dataset another one."""

from __future__ import annotations

import os
import pickle
from pathlib import Path
from typing import ClassVar

import pytest
from pydantic import ValidationError

from pipeline.config.load import load_config
from pipeline.datasets import ADAPTERS, open_dataset
from pipeline.datasets.base import DatasetOptions, SourceSample


def sample(folder: Path) -> SourceSample:
    return SourceSample("train_a", "train", {"rgb": str(folder / "a.png")}, str(folder / "l.png"))


def test_the_version_changes_with_any_file(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"1")
    versions = [sample(tmp_path).version()]
    (tmp_path / "l.png").write_bytes(b"1")
    versions.append(sample(tmp_path).version())
    (tmp_path / "a.png").write_bytes(b"12")
    versions.append(sample(tmp_path).version())
    os.utime(tmp_path / "a.png", ns=(1, 1))
    versions.append(sample(tmp_path).version())
    (tmp_path / "a.png").unlink()
    versions.append(sample(tmp_path).version())
    assert len(set(versions)) == len(versions)
    assert sample(tmp_path).version() == versions[-1]


def test_rendered_data_has_no_version() -> None:
    assert SourceSample("train_a", "train").version() == ""


class Options(DatasetOptions):
    adapter: str = "made-up"
    size: int = 3
    number: int = 10
    growth_fields: ClassVar[frozenset[str]] = frozenset({"number"})


def test_growth_fields_stay_out_of_the_identity() -> None:
    assert Options().identity() == Options(number=20).identity()
    assert Options().identity() != Options(size=4).identity()
    assert Options().identity() == {"adapter": "made-up", "size": 3}


def test_options_are_frozen_and_closed() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        Options().size = 4  # type: ignore[misc]
    with pytest.raises(ValidationError, match="Extra inputs"):
        Options.model_validate({"sise": 4})


@pytest.mark.parametrize("name", ["folder", "synthetic"])
def test_adapters_open_and_cross_to_other_processes(name: str, tmp_path: Path) -> None:
    options = 'root = "./x"\nclasses = ["a"]' if name == "folder" else ""
    path = tmp_path / "c.toml"
    path.write_text(
        f'name = "x"\n[dataset]\nadapter = "{name}"\n{options}\n[modalities.rgb]\n'
        "[modalities.depth]\n"
    )
    config = load_config(path)
    assert isinstance(config.dataset, ADAPTERS[name][0])
    adapter = open_dataset(config.dataset, config.specs())
    carried = pickle.loads(pickle.dumps(adapter))  # noqa: S301
    assert carried.classes == adapter.classes
    assert len(adapter.palette) == len(adapter.classes)
