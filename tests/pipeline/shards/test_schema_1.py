"""Datasets of schema 1, which knew nothing of source files, are read and grown as they are.

`schema_1/` was written by the last version that made them, from the fixture's samples.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from flows.planning.coverage import coverage_rows
from pipeline.config.config import Config
from pipeline.core.fingerprint import fingerprint
from pipeline.formats.parquet import read_table
from pipeline.formats.shard_tar import read_shard
from pipeline.shards.manifest import DATASET, MANIFEST_SCHEMA, Manifest
from pipeline.shards.prepare import prepare
from pipeline.workspace import Workspace, dataset_identity

OLD = Path(__file__).with_name("schema_1")
Files = dict[str, bytes]


@pytest.fixture
def config(make_source: Callable[..., Path], make_config: Callable[..., Config]) -> Config:
    """A workspace with the old dataset; its source has two samples more."""
    make_source(train=7, val=2)
    config = make_config()
    shutil.copytree(OLD, Workspace.of(config).dataset(config))
    return config


def folder(config: Config) -> Path:
    path = Workspace.of(config).dataset(config)
    assert isinstance(path, Path)
    return path


def test_the_fingerprint_of_a_schema_1_dataset_is_unchanged(
    make_config: Callable[..., Config],
) -> None:
    config = make_config("dataset.root=/data/source")
    described = json.loads((OLD / DATASET).read_text())
    assert described["identity"] == dataset_identity(config)
    assert described["fingerprint"] == fingerprint(dataset_identity(config))


def test_a_schema_1_dataset_is_read(config: Config) -> None:
    manifest = Manifest.load(folder(config))
    assert manifest.num_samples == 7
    assert manifest.rows("train")[0]["source_sha256"] is None
    assert set(manifest.rows("train")[0]) == set(MANIFEST_SCHEMA.names)
    assert manifest.statistics("train").num_samples == 5
    for shard in manifest.all_shards:
        assert tuple(key for key, _ in read_shard(shard.path, shard.sha256)) == shard.keys


def test_new_samples_leave_schema_1_records_unchanged(
    config: Config, tree: Callable[[Path], Files]
) -> None:
    before = tree(folder(config) / "shards")
    digest = Manifest.load(folder(config)).digest()
    assert prepare(config, Workspace.of(config), progress=False).done == 1
    after = tree(folder(config) / "shards")
    assert {name: after[name] for name in before} == before
    manifest = Manifest.load(folder(config))
    assert manifest.digest() != digest
    assert manifest.description["schema"] == 2
    known = [row["source_sha256"] is not None for row in manifest.rows("train")]
    assert known == [False] * 5 + [True] * 2
    assert read_table(folder(config) / "manifest.parquet").schema.equals(MANIFEST_SCHEMA)


def test_samples_without_source_digest_are_reported_as_unknown(config: Config) -> None:
    manifest = Manifest.load(folder(config))
    rows = coverage_rows(config, Workspace.of(config), manifest)
    assert [row.note for row in rows[:2]] == ["5 of unknown source", "2 of unknown source"]
    report = prepare(config, Workspace.of(config), progress=False)
    assert report.details["source"]["train"]["unknown"] == 5
    assert report.details["advice"] == []
