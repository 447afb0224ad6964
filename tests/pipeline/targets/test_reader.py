"""Cached targets of a shard: rows by key, what is missing, and never those of other shard bytes.

The join of samples with their targets is tested in tests/student/data/test_target_join.py.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.config.config import Config
from pipeline.errors import CorruptShard, FingerprintMismatch, MissingTarget
from pipeline.shards.manifest import Manifest, ShardInfo
from pipeline.targets.lookup import point_to_store
from pipeline.targets.provenance import TargetProvenance
from pipeline.targets.reader import CachedTeacher, KeyedTargets, Targets
from pipeline.targets.store import TargetStore
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


def shard_of(keys: list[str], present: list[bool] | None = None, index: int = 0) -> ShardInfo:
    blank = ("",) * len(keys)
    there = {m: tuple(present or [True] * len(keys)) for m in ("rgb", "depth")}
    return ShardInfo(
        "train", index, Path("x.tar"), f"{index:064d}", tuple(keys), there, blank, blank
    )


def targets_of(shard: ShardInfo, missing: dict[str, set[str]]) -> Targets:
    """Each key's own rows; NaN where the modality is absent or its target is missing."""
    rows = {
        modality: np.stack([row_of(key, modality) for key in shard.keys])
        for modality in shard.present
    }
    for modality, array in rows.items():
        for row, key in enumerate(shard.keys):
            if not shard.present[modality][row] or key in missing[modality]:
                array[row] = np.nan
    return {modality: {"embedding": array} for modality, array in rows.items()}


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
@pytest.mark.parametrize("bad", [np.nan, -np.nan, np.inf, -np.inf])
def test_a_row_with_one_number_that_is_not_finite_is_none(dtype: type, bad: float) -> None:
    shard = shard_of(["a", "b"])
    rows = np.array([[[65504.0, -0.0], [6e-8, -65504.0]]] * 2, dtype)
    keyed = KeyedTargets(shard, {"rgb": {"patch": rows}})
    np.testing.assert_array_equal(keyed.row("b", "rgb", "patch"), rows[1])
    rows[1, 0, 1] = bad
    assert keyed.row("b", "rgb", "patch") is None
    assert keyed.row("b", "rgb", "patch", view=0) is None
    assert keyed.row("b", "rgb", "patch", view=1) is not None
    assert keyed.row("a", "rgb", "patch") is not None


def test_a_key_listed_twice_is_refused() -> None:
    shard = shard_of(["a", "b", "a"])
    with pytest.raises(CorruptShard, match="3 samples with 2 keys"):
        KeyedTargets(shard, targets_of(shard, {"rgb": set(), "depth": set()}))


@given(keys=st.permutations([f"train_{n:03d}" for n in range(12)]))
def test_a_row_follows_its_key_in_any_order(keys: list[str]) -> None:
    shard = shard_of(keys)
    keyed = KeyedTargets(shard, targets_of(shard, {"rgb": set(), "depth": set()}))
    for key in keys:
        for modality in ("rgb", "depth"):
            row = keyed.row(key, modality, "embedding")
            np.testing.assert_array_equal(row, row_of(key, modality))
    assert keyed.row("train_999", "rgb", "embedding") is None
    assert keyed.row(keys[0], "lidar", "embedding") is None


def test_the_width_comes_from_the_stores(teacher: CachedTeacher) -> None:
    assert teacher.width("embedding") == DIM


def test_missing_shards_are_named_before_a_run(prepared: Prepared) -> None:
    teach(prepared, "rgb")
    teach(prepared, "depth", skip=1)
    teacher = CachedTeacher.open(prepared[0], prepared[1])
    shards = prepared[2].shards("train")
    teacher.require_complete(shards[1:])
    with pytest.raises(MissingTarget, match=r"1 of 3 shards have no depth .*train-000000"):
        teacher.require_complete(shards)


def test_numbers_of_other_shard_bytes_are_never_used(
    prepared: Prepared, teacher: CachedTeacher
) -> None:
    """Two shards of one size: neither's numbers serve the other, nor a shard that was made anew."""
    one, other = prepared[2].shards("train")[:2]
    assert one.num_rows == other.num_rows
    changed = dataclasses.replace(one, sha256="0" * 64)
    swapped = dataclasses.replace(other, index=one.index, path=one.path)
    for shard in (changed, swapped):
        assert teacher.targets(shard) == {"rgb": {}, "depth": {}}
        everything = frozenset(shard.keys)
        assert teacher.missing_targets(shard) == {"rgb": everything, "depth": everything}
        keyed = KeyedTargets(shard, teacher.targets(shard))
        assert keyed.row(shard.keys[0], "rgb", "embedding") is None
    assert teacher.missing_targets(one) == {"rgb": frozenset(), "depth": frozenset()}


def test_missing_are_whole_shards_and_rows_that_are_not_finite(
    prepared: Prepared, monkeypatch: pytest.MonkeyPatch
) -> None:
    teach(prepared, "rgb")
    teach(prepared, "depth", skip=1)
    teacher = CachedTeacher.open(prepared[0], prepared[1])
    first, second = prepared[2].shards("train")[:2]
    assert teacher.missing_targets(first) == {"rgb": frozenset(), "depth": frozenset(first.keys)}
    assert teacher.missing_targets(second)["depth"] == frozenset()
    read = TargetStore.read

    def with_a_nan(store: TargetStore, shard: ShardInfo, output: str) -> np.ndarray:
        rows = read(store, shard, output).copy()
        rows[1, 0] = np.nan
        return rows

    monkeypatch.setattr(TargetStore, "read", with_a_nan)
    assert teacher.missing_targets(second) == {
        m: frozenset(second.keys[1:2]) for m in ("rgb", "depth")
    }


def test_content_changes_with_what_is_there(prepared: Prepared) -> None:
    shards = prepared[2].shards("train")
    teach(prepared, "rgb")
    teach(prepared, "depth", skip=1)
    teacher = CachedTeacher.open(prepared[0], prepared[1])
    before = teacher.content(shards)
    assert teacher.content(shards) == before
    teach(prepared, "depth")
    assert teacher.content(shards) != before


def test_towers_of_different_widths_are_refused(prepared: Prepared) -> None:
    teach(prepared, "rgb")
    teach(prepared, "depth", dim=2 * DIM)
    with pytest.raises(FingerprintMismatch, match="one width"):
        CachedTeacher.open(prepared[0], prepared[1])
