"""The join of shards with cached targets: by key, whatever the order, with no wrong pair."""

from __future__ import annotations

import dataclasses
import pickle
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.config import Config
from pipeline.errors import CorruptShard, FingerprintMismatch, MissingTarget
from pipeline.manifest import Manifest, ShardInfo
from pipeline.shards import read_shard
from pipeline.targets import TargetProvenance, TargetStore, point_to_store
from pipeline.teacher_source import CachedTeacher, join
from pipeline.workspace import Workspace

Prepared = tuple[Config, Workspace, Manifest]
DIM = 4


def row_of(key: str, modality: str) -> np.ndarray:
    """A vector that only this sample and modality have."""
    return np.random.default_rng([*f"{key}/{modality}".encode()]).random(DIM).astype(np.float16)


def teach(prepared: Prepared, modality: str, dim: int = DIM, skip: int = 0) -> TargetStore:
    config, workspace, manifest = prepared
    spec = config.specs()[modality]
    store = TargetStore.create(
        workspace.targets(config),
        TargetProvenance(
            modality=modality,
            teacher="t",
            spec=spec.identity(),
            tower={"tower": spec.tower},
            outputs={"embedding": (dim,)},
            shard_size=config.store.shard_size,
        ),
    )
    for shard in manifest.all_shards[skip:]:
        rows = np.stack([np.resize(row_of(key, modality), dim) for key in shard.keys])
        store.commit(shard, {"embedding": rows}, {})
    point_to_store(config, workspace, store)
    return store


@pytest.fixture
def teacher(prepared: Prepared) -> CachedTeacher:
    for modality in ("rgb", "depth"):
        teach(prepared, modality)
    return CachedTeacher.open(prepared[0], prepared[1])


def test_every_sample_of_every_shard_gets_its_own_rows(
    prepared: Prepared, teacher: CachedTeacher
) -> None:
    carried = pickle.loads(pickle.dumps(teacher))  # noqa: S301
    num_pairs = 0
    for shard in prepared[2].all_shards:
        samples = read_shard(shard.path, shard.sha256)
        for key, _, rows in join(shard, carried.targets(shard), samples):
            for modality in ("rgb", "depth"):
                expected = row_of(key, modality)
                np.testing.assert_array_equal(rows[modality]["embedding"], expected)
                num_pairs += 1
    assert num_pairs == 2 * 13


@given(
    order=st.lists(st.integers(0, 15), max_size=40),
    num_rows=st.integers(1, 16),
)
def test_shuffled_dropped_and_repeated_keys_give_no_wrong_pair(
    order: list[int], num_rows: int
) -> None:
    keys = tuple(f"train_{n:03d}" for n in range(num_rows))
    blank = ("",) * num_rows
    shard = ShardInfo("train", 0, Path("x.tar"), "", keys, {}, blank, blank)
    targets = {"rgb": {"embedding": np.stack([row_of(key, "rgb") for key in keys])}}
    wanted = [keys[n] for n in order if n < num_rows]
    samples = [(key, f"sample {key}") for key in wanted]
    joined = list(join(shard, targets, samples))
    assert [(key, sample) for key, sample, _ in joined] == samples
    for key, _, rows in joined:
        np.testing.assert_array_equal(rows["rgb"]["embedding"], row_of(key, "rgb"))


def test_a_key_that_the_manifest_does_not_list_is_refused(
    prepared: Prepared, teacher: CachedTeacher
) -> None:
    shard = prepared[2].all_shards[0]
    with pytest.raises(CorruptShard, match=r"'train_999'.*prepare"):
        list(join(shard, teacher.targets(shard), [("train_999", None)]))


def test_dim_and_fingerprints_come_from_the_stores(teacher: CachedTeacher) -> None:
    assert teacher.dim == DIM
    assert set(teacher.fingerprints) == {"rgb", "depth"}
    assert len(set(teacher.fingerprints.values())) == 2


def test_missing_shards_are_named_before_a_run(prepared: Prepared) -> None:
    teach(prepared, "rgb")
    teach(prepared, "depth", skip=1)
    teacher = CachedTeacher.open(prepared[0], prepared[1])
    shards = prepared[2].shards("train")
    teacher.require_complete(shards[1:])
    with pytest.raises(MissingTarget, match=r"1 of 3 shards have no depth .*train-000000"):
        teacher.require_complete(shards)


def test_a_shard_that_changed_has_no_targets(prepared: Prepared, teacher: CachedTeacher) -> None:
    changed = dataclasses.replace(prepared[2].all_shards[0], sha256="0" * 64)
    with pytest.raises(MissingTarget, match="no rgb embedding of shard train-000000"):
        teacher.targets(changed)


def test_towers_of_different_widths_are_refused(prepared: Prepared) -> None:
    teach(prepared, "rgb")
    teach(prepared, "depth", dim=2 * DIM)
    with pytest.raises(FingerprintMismatch, match="one width"):
        CachedTeacher.open(prepared[0], prepared[1])
