"""The join of shards with cached targets: by key, whatever the order, with no wrong pair."""

from __future__ import annotations

import dataclasses
import pickle
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.config.config import Config
from pipeline.errors import CorruptShard, FingerprintMismatch, MissingTarget
from pipeline.formats.shard_tar import read_shard
from pipeline.shards.manifest import Manifest, ShardInfo
from pipeline.targets.lookup import point_to_store
from pipeline.targets.provenance import TargetProvenance
from pipeline.targets.reader import (
    CachedTeacher,
    JoinCounts,
    KeyedTargets,
    Policy,
    Targets,
    join,
)
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


def shard_of(keys: list[str], present: list[bool] | None = None, index: int = 0) -> ShardInfo:
    blank = ("",) * len(keys)
    there = {m: tuple(present or [True] * len(keys)) for m in ("rgb", "depth")}
    return ShardInfo(
        "train", index, Path("x.tar"), f"{index:064d}", tuple(keys), there, blank, blank
    )


def targets_of(shard: ShardInfo, holes: dict[str, set[str]]) -> Targets:
    """Each key's own rows; NaN where the modality is absent or has a hole."""
    rows = {
        modality: np.stack([row_of(key, modality) for key in shard.keys])
        for modality in shard.present
    }
    for modality, array in rows.items():
        for place, key in enumerate(shard.keys):
            if not shard.present[modality][place] or key in holes[modality]:
                array[place] = np.nan
    return {modality: {"embedding": array} for modality, array in rows.items()}


KEYS = [f"train_{n:03d}" for n in range(12)]
SOME_KEYS = st.sets(st.sampled_from(KEYS))


@given(
    keys=st.permutations(KEYS),
    wanted=st.lists(st.sampled_from(KEYS), max_size=30),
    absent=SOME_KEYS,
    depth_holes=SOME_KEYS,
    rgb_holes=SOME_KEYS,
    policy=st.sampled_from(["error", "skip", "mask"]),
)
def test_shuffled_dropped_and_repeated_keys_give_no_wrong_pair(
    keys: list[str],
    wanted: list[str],
    absent: set[str],
    depth_holes: set[str],
    rgb_holes: set[str],
    policy: Policy,
) -> None:
    shard = shard_of(keys, [key not in absent for key in keys])
    holes = {"rgb": rgb_holes, "depth": depth_holes}
    targets, counts = targets_of(shard, holes), JoinCounts()
    lacking = {key: {m for m in holes if key in holes[m] - absent} for key in KEYS}
    samples = [(key, f"sample {key}") for key in wanted]
    found = join(shard, targets, samples, policy, counts)
    bad = [key for key in wanted if lacking[key]]
    if policy == "error" and bad:
        with pytest.raises(MissingTarget, match=rf"embedding of sample {bad[0]}"):
            list(found)
        return
    joined = list(found)
    kept = [pair for pair in samples if policy != "skip" or not lacking[pair[0]]]
    assert [(key, sample) for key, sample, _ in joined] == kept
    for key, _, answers in joined:
        assert set(answers) == (set() if key in absent else set(holes) - lacking[key])
        for modality, rows in answers.items():
            np.testing.assert_array_equal(rows["embedding"], row_of(key, modality))
    expected = {m: sum(m in lacking[key] for key in wanted) for m in holes}
    assert counts.holes == {m: number for m, number in expected.items() if number}
    assert counts.joined == len(kept)
    assert counts.skipped == (len(bad) if policy == "skip" else 0)
    assert counts.masked == (len(bad) if policy == "mask" else 0)


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


def test_a_modality_without_answers_for_the_shard_is_a_hole_of_every_sample() -> None:
    shard = shard_of(["a", "b"], [True, False])
    targets = {**targets_of(shard, {"rgb": set(), "depth": set()}), "depth": {}}
    samples = [("b", 0), ("a", 1)]
    assert [key for key, *_ in join(shard, targets, samples, "skip")] == ["b"]
    ((_, _, none), (_, _, some)) = join(shard, targets, samples, "mask")
    assert (set(none), set(some)) == (set(), {"rgb"})


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
        assert teacher.holes(shard) == {name: frozenset(shard.keys) for name in ("rgb", "depth")}
        with pytest.raises(MissingTarget, match=f"embedding of sample {shard.keys[0]}"):
            list(join(shard, teacher.targets(shard), [(shard.keys[0], None)]))
    assert teacher.holes(one) == {"rgb": frozenset(), "depth": frozenset()}


def test_holes_are_missing_shards_and_rows_that_are_not_finite(
    prepared: Prepared, monkeypatch: pytest.MonkeyPatch
) -> None:
    teach(prepared, "rgb")
    teach(prepared, "depth", skip=1)
    teacher = CachedTeacher.open(prepared[0], prepared[1])
    first, second = prepared[2].shards("train")[:2]
    assert teacher.holes(first) == {"rgb": frozenset(), "depth": frozenset(first.keys)}
    assert teacher.holes(second)["depth"] == frozenset()
    read = TargetStore.read

    def with_a_hole(store: TargetStore, shard: ShardInfo, output: str) -> np.ndarray:
        rows = read(store, shard, output).copy()
        rows[1, 0] = np.nan
        return rows

    monkeypatch.setattr(TargetStore, "read", with_a_hole)
    assert teacher.holes(second) == {m: frozenset(second.keys[1:2]) for m in ("rgb", "depth")}


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
