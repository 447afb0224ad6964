"""Counts equal what the pass then does; the time follows how it overlaps its work."""

from __future__ import annotations

from pathlib import Path

import pytest

import teacher
from flows.planning.estimate import (
    Prediction,
    Probe,
    TowerRate,
    count_work,
    estimate_time,
    future_units,
    images_by_shard,
)
from flows.planning.flops import flops_per_image
from pipeline.config.config import Config
from pipeline.errors import NotEnoughSpace
from pipeline.shards.manifest import Manifest
from pipeline.shards.prepare_plan import FutureShard
from pipeline.workspace import Workspace
from teacher.encoding.precompute import precompute
from teacher.encoding.units import Unit, bytes_to_write, plan_towers, plan_units
from tests.teacher.conftest import config, prepared, root, source

__all__ = ["config", "prepared", "root", "source"]


def object_files(config: Config) -> list[Path]:
    root = Workspace.of(config).targets(config)
    return [
        p for p in root.rglob("*") if p.is_file() and "c" in p.parts and "targets.zarr" in p.parts
    ]


def with_views(config: Config, views: int) -> Config:
    return config.model_copy(update={"teacher": config.teacher.model_copy(update={"views": views})})


@pytest.mark.parametrize("views", [0, 2])
def test_planned_units_and_bytes_equal_the_pass(config: Config, views: int) -> None:
    config = with_views(config, views)
    workspace = Workspace.of(config)
    manifest = Manifest.load(workspace.dataset(config))
    plans = plan_towers(config, workspace)
    units = plan_units(plans, manifest.all_shards)
    work = count_work(config, plans, units, images_by_shard(manifest.all_shards, ()))
    encoded: list[int] = []
    real = teacher.Tower.encode

    def counted(self: teacher.Tower, pixels: object, **options: bool) -> object:
        encoded.append(len(pixels))  # type: ignore[arg-type]
        return real(self, pixels, **options)  # type: ignore[arg-type]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(teacher.Tower, "encode", counted)
        report = precompute(config, workspace, progress=False)
    files = object_files(config)
    size = sum(path.stat().st_size for path in files)
    assert sum(item.num_bytes for item in work) == bytes_to_write(plans, units) == size
    assert sum(item.num_shards for item in work) == report.done - 1
    assert len(files) == (report.done - 1) * (3 if views else 2)
    times = max(1, views)
    assert sum(item.num_images for item in work) * times == sum(encoded)
    assert {i.modality: i.num_images for i in work} == {"rgb": 13, "nir": 12, "depth": 12}
    assert sum(item.num_tokens for item in work) == sum(encoded) * 5
    flops = flops_per_image(plans[0].files.config, patch=True)
    assert sum(item.flops for item in work) == sum(encoded) * flops
    assert plan_units(plans, manifest.all_shards) == []


def test_shards_to_come_are_counted_from_the_listing(config: Config) -> None:
    plans = plan_towers(config, Workspace.of(config))
    future = [
        FutureShard("train", 4, {"rgb": 4, "nir": 3, "depth": 4}),
        FutureShard("val", 2, {"rgb": 2, "nir": 2, "depth": 2}),
    ]
    units = future_units(plans, future)
    assert [(u.split, u.index, u.tower, u.num_pictures) for u in units] == [
        ("train", -1, "image", 7),
        ("train", -1, "depth", 4),
        ("val", -2, "image", 4),
        ("val", -2, "depth", 2),
    ]
    work = count_work(config, plans, units, images_by_shard((), future))
    assert {w.modality: (w.num_shards, w.num_images) for w in work} == {
        "rgb": (2, 6),
        "nir": (2, 5),
        "depth": (2, 6),
    }


UNITS = [
    Unit("train", 0, "image", ("rgb", "nir"), 20),
    Unit("train", 0, "depth", ("depth",), 10),
    Unit("train", 1, "image", ("rgb", "nir"), 20),
]


def timed(*, overlaps: bool, decode_s: float = 0.0, commit_s: float = 0.0) -> Prediction:
    rates = {"image": TowerRate(2.0, 1.0), "depth": TowerRate(3.0, 1.0)}
    decode = {"rgb": decode_s, "nir": decode_s, "depth": decode_s}
    commit = {"image": commit_s, "depth": commit_s}
    probe = Probe("cuda", overlaps, rates, decode, 0.0, commit)  # type: ignore[arg-type]
    return estimate_time(UNITS, probe, 0.0)


def test_time_of_compute_alone() -> None:
    found = timed(overlaps=True)
    assert (found.seconds, found.load_s, found.compute_s) == (55.0, 5.0, 50.0)
    assert found.bottleneck == "compute"


def test_decoding_and_compute_overlap() -> None:
    assert timed(overlaps=True, decode_s=0.5).seconds == 55.0
    slow = timed(overlaps=True, decode_s=3.0)
    assert (slow.seconds, slow.bottleneck) == (155.0, "decode")


def test_only_the_last_commit_of_a_shard_is_waited_for() -> None:
    """Shard 0: three modalities of 10 s, shard 1: two; each shard ends with one commit of 4 s."""
    found = timed(overlaps=True, commit_s=4.0)
    assert (found.seconds, found.write_s) == (55.0 + 2 * 4.0, 20.0)


def test_slow_commits_bound_the_pass() -> None:
    """Shard 0: 10 s, then three commits of 30 s; shard 1: 10 s, then two."""
    found = timed(overlaps=True, commit_s=30.0)
    assert (found.seconds, found.bottleneck) == (5.0 + 10 + 90 + 10 + 60, "write")


def test_without_spare_cores_nothing_overlaps() -> None:
    assert timed(overlaps=False, decode_s=0.5, commit_s=4.0).seconds == 55.0 + 25.0 + 20.0


def test_nothing_to_do_takes_no_time() -> None:
    probe = Probe("cpu", True, {}, {}, 1.0, {})
    assert estimate_time([], probe, 100.0).seconds == 0


def test_slow_reading_bounds_the_pass() -> None:
    rates = {"image": TowerRate(0.0, 0.1), "depth": TowerRate(0.0, 0.1)}
    commit = {"image": 0.0, "depth": 0.0}
    probe = Probe("cuda", True, rates, {}, 0.5, commit)  # type: ignore[arg-type]
    found = estimate_time(UNITS, probe, 100.0)
    assert (found.seconds, found.bottleneck) == (150.0, "read")


def test_targets_that_do_not_fit_are_refused_before_the_stores_are_made(
    config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    workspace = Workspace.of(config)
    monkeypatch.setattr("pipeline.storage.disk_space.free_bytes", lambda path: 1000)
    with pytest.raises(NotEnoughSpace, match=r"targets of 8 units: expected 1\.0\d MB free"):
        precompute(config, workspace, progress=False)
    assert not workspace.targets(config).exists()
