"""Where things lie, and what decides a dataset's fingerprint."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline.config import Config
from pipeline.errors import ConfigError
from pipeline.workspace import Workspace, dataset_identity, dataset_slug

MakeConfig = Callable[..., Config]


def test_folders(make_config: MakeConfig, tmp_path: Path) -> None:
    config = make_config()
    workspace, slug = Workspace.of(config), dataset_slug(config)
    assert slug.startswith("folder-")
    assert len(slug) == len("folder-") + 12
    assert workspace.dataset(config) == tmp_path / "ws/datasets" / slug
    assert workspace.targets(config) == tmp_path / "ws/targets" / slug
    assert (workspace.prompts, workspace.runs) == (tmp_path / "ws/prompts", tmp_path / "ws/runs")
    assert workspace.cache == tmp_path / "ws/cache"


@pytest.mark.parametrize(
    "override",
    ["store.shard_size=8", "dataset.label=masks", "modalities.depth.kind=gray16"],
)
def test_what_changes_a_stored_byte_changes_the_dataset(
    make_config: MakeConfig, override: str
) -> None:
    assert dataset_slug(make_config(override)) != dataset_slug(make_config())


@pytest.mark.parametrize(
    "override",
    ["train.steps=7", "teacher.name=x", "prepare.workers=3", "store.dtype=float32", "seed=4"],
)
def test_what_changes_no_stored_byte_does_not(make_config: MakeConfig, override: str) -> None:
    assert dataset_identity(make_config(override)) == dataset_identity(make_config())


@pytest.mark.parametrize("url", ["s3://bucket/x", "https://host/x"])
def test_a_url_is_refused_by_name(make_config: MakeConfig, url: str) -> None:
    config = make_config().model_copy(update={"workspace": Path(url)})
    with pytest.raises(ConfigError, match="workspace: expected a local path, found"):
        Workspace.of(config)
