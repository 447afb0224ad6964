"""Where things lie, and what decides a dataset's fingerprint."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline.config.config import Config
from pipeline.config.load import dump_config, load_config
from pipeline.errors import ConfigError
from pipeline.workspace import Workspace, dataset_identity, dataset_slug

MakeConfig = Callable[..., Config]


def test_paths_of_artefacts(make_config: MakeConfig, tmp_path: Path) -> None:
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
def test_fields_that_change_stored_bytes_change_the_dataset_slug(
    make_config: MakeConfig, override: str
) -> None:
    assert dataset_slug(make_config(override)) != dataset_slug(make_config())


@pytest.mark.parametrize(
    "override",
    ["train.steps=7", "teacher.name=x", "prepare.workers=3", "store.dtype=float32", "seed=4"],
)
def test_fields_that_change_no_stored_byte_keep_the_dataset_slug(
    make_config: MakeConfig, override: str
) -> None:
    assert dataset_identity(make_config(override)) == dataset_identity(make_config())


@pytest.mark.parametrize("url", ["s3://bucket/x", "gs://bucket/x", "az://container/x/y"])
def test_a_workspace_may_be_an_object_store_url(make_config: MakeConfig, url: str) -> None:
    config = make_config(workspace=f"{url}/")
    assert str(Workspace.of(config).root) == url
    assert str(Workspace.of(config).runs) == f"{url}/runs"
    assert isinstance(Workspace.of(config).cache, Path)


@pytest.mark.parametrize("url", ["https://host/x", "s3:/bucket/x", "s3://", "s3://b/../c"])
def test_other_urls_are_refused(make_config: MakeConfig, url: str) -> None:
    with pytest.raises(ConfigError, match="workspace: .*expected"):
        make_config(workspace=url)


@pytest.mark.parametrize("url", ["s3://me:Secret@bucket/x", "s3://bucket/x?sig=Secret"])
def test_a_url_with_credentials_is_refused_without_repeating_them(
    make_config: MakeConfig, url: str
) -> None:
    with pytest.raises(ConfigError, match="AWS_ACCESS_KEY_ID") as refusal:
        make_config(workspace=url)
    assert "Secret" not in str(refusal.value)


def test_a_url_workspace_round_trips_through_toml(make_config: MakeConfig, tmp_path: Path) -> None:
    config = make_config("store.cache_gb=1.5", workspace="s3://bucket/x")
    (tmp_path / "config.toml").write_text(dump_config(config))
    assert load_config(tmp_path / "config.toml") == config
