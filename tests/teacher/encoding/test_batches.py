"""Batches on their way to a tower: composition, what is read ahead, when a modality is whole."""

from __future__ import annotations

from itertools import islice

import numpy as np
import pytest

from pipeline.config.config import Config
from pipeline.errors import CorruptShard
from pipeline.shards.manifest import Manifest, ShardInfo
from pipeline.workspace import Workspace
from teacher.encoding import batches as module
from teacher.encoding.batches import Batch, decoded_batches, num_decoders, read_image_bytes
from teacher.encoding.units import TowerPlan, Unit, plan_towers, plan_units


@pytest.fixture
def shards(config: Config) -> tuple[ShardInfo, ...]:
    return Manifest.load(Workspace.of(config).dataset(config)).all_shards


@pytest.fixture
def plans(config: Config) -> list[TowerPlan]:
    return plan_towers(config, Workspace.of(config))


def described(batch: Batch) -> tuple[str, list[tuple[str, int]], tuple[str, ...], bool]:
    pictures = [(picture.modality, picture.row) for picture in batch.images]
    return batch.plan.tower, pictures, batch.finished, batch.ends_shard


def test_batches_of_a_shard(plans: list[TowerPlan], shards: tuple[ShardInfo, ...]) -> None:
    """Shard 0 has rgb and nir of four samples, and depth of all but the third."""
    units = plan_units(plans, shards[:1])
    found = [described(batch) for batch in decoded_batches(plans, shards, units, 3)]
    rgb, nir = [("rgb", row) for row in range(4)], [("nir", row) for row in range(4)]
    depth = [("depth", row) for row in (0, 1, 3)]
    assert found == [
        ("image", rgb[:3], (), False),
        ("image", [rgb[3], *nir[:2]], ("rgb",), False),
        ("image", nir[2:], ("nir",), False),
        ("depth", depth, ("depth",), True),
    ]


def test_what_is_missing_does_not_change_a_batch(
    plans: list[TowerPlan], shards: tuple[ShardInfo, ...]
) -> None:
    whole = decoded_batches(plans, shards, plan_units(plans, shards[:1]), 3)
    only_nir = [Unit("train", 0, "image", ("nir",), 4)]
    part = list(decoded_batches(plans, shards, only_nir, 3))
    assert [b.images for b in part] == [b.images for b in islice(whole, 1, 3)]
    assert [(b.finished, b.ends_shard) for b in part] == [((), False), (("nir",), True)]
    whole.close()


def test_a_modality_without_pictures_is_whole_at_once(
    plans: list[TowerPlan], shards: tuple[ShardInfo, ...]
) -> None:
    bare = ShardInfo(
        split=shards[0].split,
        index=shards[0].index,
        path=shards[0].path,
        sha256=shards[0].sha256,
        keys=shards[0].keys,
        present={**shards[0].present, "depth": (False,) * 4},
        conditions=shards[0].conditions,
        corner_cases=shards[0].corner_cases,
    )
    units = [unit for unit in plan_units(plans, [bare]) if unit.tower == "depth"]
    found = [described(batch) for batch in decoded_batches(plans, [bare], units, 3)]
    assert found == [("depth", [], ("depth",), True)]


def test_pictures_arrive_decoded(plans: list[TowerPlan], shards: tuple[ShardInfo, ...]) -> None:
    units = plan_units(plans, shards[:1])
    for batch in decoded_batches(plans, shards, units, 3):
        for picture, array in zip(batch.images, batch.arrays, strict=True):
            spec = batch.plan.specs[picture.modality]
            assert array.dtype == np.dtype(spec.dtype)
            assert array.shape[:2] == (40, 50)


def test_one_shard_is_read_ahead_and_no_more(
    plans: list[TowerPlan], shards: tuple[ShardInfo, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[str] = []

    def watched(shard: ShardInfo, modalities: list[str]) -> object:
        read.append(shard.name)
        return read_image_bytes(shard, modalities)

    monkeypatch.setattr(module, "read_image_bytes", watched)
    stream = decoded_batches(plans, shards, plan_units(plans, shards), 3)
    ends = 0
    for batch in stream:
        ends += batch.ends_shard
        # The batch in hand, the one being decoded, and the shard behind that one.
        assert len(read) <= ends + 3
    assert read == [shard.name for shard in shards]


def test_a_damaged_shard_is_refused_when_it_is_reached(
    plans: list[TowerPlan], shards: tuple[ShardInfo, ...]
) -> None:
    units = plan_units(plans, shards)
    shards[2].path.write_bytes(b"not a tar")
    seen = []
    with pytest.raises(CorruptShard, match=shards[2].path.name):
        seen.extend(batch.shard.name for batch in decoded_batches(plans, shards, units, 3))
    assert set(seen) <= {shards[0].name, shards[1].name}
    assert shards[0].name in seen


def test_labels_are_not_kept(shards: tuple[ShardInfo, ...]) -> None:
    found = read_image_bytes(shards[0], ["rgb", "depth"])
    assert tuple(found) == shards[0].keys
    assert [sorted(members) for members in found.values()] == [
        ["depth", "rgb"],
        ["depth", "rgb"],
        ["rgb"],
        ["depth", "rgb"],
    ]


def test_there_are_at_least_two_decoders() -> None:
    assert 2 <= num_decoders() <= 8
