"""Manifest rows by shard: exactly one run of rows a shard, and how long its tar must be."""

from __future__ import annotations

import pytest

from pipeline.shards.manifest import MANIFEST, Manifest, read_table
from pipeline.shards.manifest_tables import least_tar_bytes, shard_sha256, split_by_shard


def test_split_by_shard_gives_the_rows_of_each_shard(prepared) -> None:
    _, _, manifest = prepared
    tables = split_by_shard(read_table(manifest.folder / MANIFEST))
    assert list(tables) == [(s.split, s.index) for s in manifest.all_shards]
    for shard in manifest.all_shards:
        rows = tables[shard.split, shard.index]
        assert tuple(rows["key"].to_pylist()) == shard.keys
        assert shard_sha256(rows) == shard.sha256
        size = shard.path.stat().st_size
        assert size - 10_240 < least_tar_bytes(rows) <= size


def test_rows_that_are_not_adjacent_and_numbered_are_refused(prepared) -> None:
    _, _, manifest = prepared
    table = read_table(Manifest.load(manifest.folder).folder / MANIFEST)
    for order in ([1, 0], [0, 2], [0, 4, 1]):
        with pytest.raises(ValueError, match="not one run"):
            split_by_shard(table.take(order))
    assert split_by_shard(table.slice(0, 0)) == {}
