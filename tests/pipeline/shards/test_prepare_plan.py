"""The plan of `prepare` is what `prepare` then does."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from pipeline.config.config import Config
from pipeline.config.load import load_config
from pipeline.errors import NotEnoughSpace
from pipeline.formats.image_codec import encode_array
from pipeline.formats.shard_tar import write_shard
from pipeline.shards.manifest import Manifest
from pipeline.shards.prepare import prepare
from pipeline.shards.prepare_plan import (
    load_if_prepared,
    measured_bytes,
    plan_prepare,
)
from pipeline.workspace import Workspace

MakeConfig = Callable[..., Config]
MakeSource = Callable[..., Path]


def tar_bytes(config: Config) -> int:
    return sum(p.stat().st_size for p in Workspace.of(config).dataset(config).rglob("*.tar"))


def make(config: Config) -> Manifest:
    prepare(config, Workspace.of(config), progress=False)
    return Manifest.load(Workspace.of(config).dataset(config))


def test_planned_counts_are_exact_and_bytes_approximate(
    make_source: MakeSource, make_config: MakeConfig
) -> None:
    make_source(train=10, val=3)
    config = make_config()
    plan = plan_prepare(config, Workspace.of(config))
    assert not Workspace.of(config).root.exists()
    manifest = make(config)
    assert plan.samples == {"train": 10, "val": 3}
    written = [
        (s.split, s.num_rows, {m: sum(p) for m, p in s.present.items()})
        for s in manifest.all_shards
    ]
    assert [(s.split, s.num_samples, dict(s.num_images)) for s in plan.shards] == written
    assert plan.num_bytes == pytest.approx(tar_bytes(config), rel=0.2)
    assert plan.seconds is not None
    assert plan.probe is not None
    assert len(plan.probe.samples) == 4


def test_only_new_samples_are_planned(make_source: MakeSource, make_config: MakeConfig) -> None:
    make_source(train=10, val=3)
    config = make_config()
    before = make(config)
    done = plan_prepare(config, Workspace.of(config))
    assert (done.samples, done.shards, done.num_bytes, done.probe) == ({}, (), 0, None)
    make_source(train=15, val=3)
    size = tar_bytes(config)
    plan = plan_prepare(config, Workspace.of(config), probe=False)
    assert plan.samples == {"train": 5}
    assert [shard.num_samples for shard in plan.shards] == [4, 1]
    assert plan.seconds is None
    after = make(config)
    assert len(after.all_shards) - len(before.all_shards) == len(plan.shards)
    assert plan.num_bytes == pytest.approx(tar_bytes(config) - size, rel=0.4)


def test_refused_samples_are_planned_only_after_they_change(
    make_source: MakeSource, make_config: MakeConfig
) -> None:
    root = make_source(train=10, val=3)
    config = make_config("prepare.max_refused=0.5")
    bad = root / "rgb" / "train" / "004.png"
    whole = bad.read_bytes()
    bad.write_bytes(whole[:50])
    make(config)
    assert plan_prepare(config, Workspace.of(config)).samples == {}
    bad.write_bytes(whole)
    assert plan_prepare(config, Workspace.of(config)).samples == {"train": 1}


def test_a_linked_source_shard_takes_no_space(tmp_path: Path) -> None:
    rng = np.random.default_rng([3])
    samples = [
        (
            f"k{index}",
            {
                "rgb.npy.zst": encode_array(rng.integers(0, 256, (6, 5, 3), dtype=np.uint8)),
                "label.npy.zst": encode_array(rng.integers(0, 2, (6, 5), dtype=np.uint8)),
            },
        )
        for index in range(3)
    ]
    write_shard(tmp_path / "source" / "train" / "000.tar", samples)
    path = tmp_path / "c.toml"
    path.write_text(
        'name = "c"\nworkspace = "./ws"\n[modalities.rgb]\n[dataset]\nadapter = "webdataset"\n'
        'root = "./source"\nclasses = ["a", "b"]\n'
    )
    config = load_config(path)
    plan = plan_prepare(config, Workspace.of(config))
    assert (plan.samples, len(plan.shards), plan.num_bytes) == ({"train": 3}, 1, 0)
    make(config)
    tar = next(Workspace.of(config).root.rglob("*.tar"))
    assert os.stat(tar).st_nlink == 2


def test_shards_that_do_not_fit_are_refused_before_anything_is_written(
    make_source: MakeSource, make_config: MakeConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_source(train=10, val=3)
    config = make_config()
    monkeypatch.setattr("pipeline.storage.disk_space.free_bytes", lambda path: 1000)
    with pytest.raises(NotEnoughSpace, match="shards of 13 samples: expected .* found 1 kB"):
        make(config)
    assert tar_bytes(config) == 0


def test_space_is_required_for_new_samples_only(
    make_source: MakeSource, make_config: MakeConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_source(train=10, val=3)
    config = make_config()
    make(config)
    before = tar_bytes(config)
    monkeypatch.setattr("pipeline.storage.disk_space.free_bytes", lambda path: 0)
    make(config)
    assert tar_bytes(config) == before > 0


def test_bytes_per_sample_are_measured_on_existing_shards(
    make_source: MakeSource, make_config: MakeConfig
) -> None:
    make_source(train=10, val=3)
    config = make_config()
    folder = Workspace.of(config).dataset(config)
    assert load_if_prepared(folder) is None
    assert measured_bytes(()) == 0
    shards = make(config).all_shards
    assert measured_bytes(shards) == pytest.approx(tar_bytes(config) / 13)
    for shard in shards[1:]:
        os.unlink(shard.path)
    assert measured_bytes(shards) == shards[0].path.stat().st_size / shards[0].num_rows
