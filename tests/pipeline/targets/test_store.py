"""The target store: what counts as present, faults that must be seen, kills, and byte identity."""

from __future__ import annotations

import dataclasses
import json
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import zarr

from pipeline.config.config import Config
from pipeline.core.fingerprint import fingerprint
from pipeline.errors import CorruptTarget, FingerprintMismatch, MissingTarget
from pipeline.shards.manifest import Manifest, ShardInfo
from pipeline.targets.provenance import TargetProvenance
from pipeline.targets.store import Coverage, TargetStore, object_bytes
from pipeline.workspace import Workspace

Prepared = tuple[Config, Workspace, Manifest]
DIM, PATCHES = 6, 4
SHARD_SIZE = 32


def provenance(**changes: object) -> TargetProvenance:
    fields = {
        "modality": "rgb",
        "teacher": "Some/Teacher One",
        "spec": {"kind": "rgb"},
        "tower": {"weights": "abc", "antialias": False},
        "outputs": {"embedding": (DIM,), "patch": (PATCHES, DIM)},
        "shard_size": SHARD_SIZE,
    }
    return TargetProvenance.model_validate({**fields, **changes})


def shard(index: int, rows: int = SHARD_SIZE, split: str = "train") -> ShardInfo:
    keys = tuple(f"{split}_{index}_{row}" for row in range(rows))
    present = {"rgb": tuple(row % 3 != 1 for row in range(rows))}
    nothing = ("",) * rows
    sha256 = fingerprint([split, index])
    return ShardInfo(split, index, Path("unused.tar"), sha256, keys, present, nothing, nothing)


def numbers(of: ShardInfo) -> dict[str, np.ndarray]:
    rng = np.random.default_rng([3, of.index])
    arrays = {
        "embedding": rng.standard_normal((of.num_rows, DIM)).astype(np.float16),
        "patch": rng.standard_normal((of.num_rows, PATCHES, DIM)).astype(np.float16),
    }
    absent = ~np.array(of.present["rgb"])
    for array in arrays.values():
        array[absent] = np.nan
    return arrays


SHARDS = [shard(0), shard(1, rows=5), shard(0, rows=3, split="val"), shard(3, rows=7)]


@pytest.fixture
def store(tmp_path: Path) -> TargetStore:
    """A store with all of `SHARDS` committed."""
    return filled(tmp_path / "root")


def filled(root: Path, num_shards: int = 4) -> TargetStore:
    store = TargetStore.create(root, provenance())
    for each in SHARDS[:num_shards]:
        store.commit(each, numbers(each), {"seconds": 1.5})
    return store


def flip_byte(path: Path, offset: int) -> None:
    data = bytearray(path.read_bytes())
    data[offset] ^= 0x10
    path.write_bytes(data)


def record_path(store: TargetStore, of: ShardInfo) -> Path:
    return store.path / "ledger" / of.split / f"{of.name}.json"


def test_read_gives_what_was_committed(store: TargetStore) -> None:
    for each in SHARDS:
        for output, expected in numbers(each).items():
            found = store.read(each, output)
            assert found.dtype == np.float16
            np.testing.assert_array_equal(found, expected)
        assert store.cost(each) == {"seconds": 1.5}


def test_rows_lie_at_shard_times_size(store: TargetStore) -> None:
    array = zarr.open_array(store.path / "targets.zarr", path="train/embedding", mode="r")
    assert array.shape == (4 * SHARD_SIZE, DIM)
    assert array.chunks == (SHARD_SIZE, DIM)
    expected = numbers(SHARDS[3])["embedding"]
    np.testing.assert_array_equal(array[3 * SHARD_SIZE : 3 * SHARD_SIZE + 7], expected)
    assert np.isnan(array[2 * SHARD_SIZE : 3 * SHARD_SIZE]).all()
    dense = zarr.open_array(store.path / "targets.zarr", path="train/patch", mode="r")
    assert dense.shards == (SHARD_SIZE, PATCHES, DIM)
    assert dense.chunks == (1, PATCHES, DIM)


def test_a_shard_without_the_modality_has_an_object_of_nan(tmp_path: Path) -> None:
    empty = dataclasses.replace(shard(0, rows=2), present={"rgb": (False, False)})
    store = TargetStore.create(tmp_path, provenance())
    nan = {k: np.full_like(v, np.nan) for k, v in numbers(empty).items()}
    store.commit(empty, nan, {})
    assert store.is_committed(empty)
    assert np.isnan(store.read(empty, "patch")).all()


def test_float32_is_stored_as_such(tmp_path: Path) -> None:
    store = TargetStore.create(tmp_path, provenance(dtype="float32", outputs={"embedding": (DIM,)}))
    exact = {"embedding": numbers(SHARDS[0])["embedding"].astype(np.float32) / 3}
    store.commit(SHARDS[0], exact, {})
    np.testing.assert_array_equal(store.read(SHARDS[0], "embedding"), exact["embedding"])


def test_files_do_not_depend_on_the_order_of_commits(
    store: TargetStore, tmp_path: Path, tree
) -> None:
    other = TargetStore.create(tmp_path / "other", provenance())
    for each in reversed(SHARDS):
        assert other.commit(each, numbers(each), {"seconds": 1.5})
        assert not other.commit(each, numbers(each), {"seconds": 9.0})
    assert tree(other.path) == tree(store.path)


def test_a_flipped_byte_anywhere_in_an_object_raises_corrupt_target(store: TargetStore) -> None:
    for output in ("embedding", "patch"):
        path = store.array("train", output).object_path(0)
        whole = path.read_bytes()
        for offset in range(0, len(whole), max(1, len(whole) // 40)):
            flip_byte(path, offset)
            with pytest.raises(CorruptTarget, match=r"expected sha256 .*any2seg precompute"):
                store.read(SHARDS[0], output)
            path.write_bytes(whole)
        assert store.read(SHARDS[0], output).shape[0] == SHARD_SIZE


def test_zarr_itself_detects_a_flipped_byte(store: TargetStore) -> None:
    """A stranger who reads with zarr alone, without our records, must not get wrong numbers."""
    for output in ("embedding", "patch"):
        path = store.array("train", output).object_path(0)
        flip_byte(path, 20)
        with pytest.raises(CorruptTarget, match="expected a whole Zarr object"):
            store.array("train", output).read_object(0)


def test_a_truncated_or_exchanged_object_raises_corrupt_target(store: TargetStore) -> None:
    path = store.array("train", "embedding").object_path(0)
    shutil.copy(store.array("train", "embedding").object_path(3), path)
    with pytest.raises(CorruptTarget, match="expected sha256"):
        store.read(SHARDS[0], "embedding")
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(CorruptTarget, match="expected sha256"):
        store.read(SHARDS[0], "embedding")


def delete_record(store: TargetStore) -> None:
    record_path(store, SHARDS[0]).unlink()


def delete_object(store: TargetStore) -> None:
    store.array("train", "patch").object_path(0).unlink()


def empty_object(store: TargetStore) -> None:
    store.array("train", "embedding").object_path(0).write_bytes(b"")


def garble_record(store: TargetStore) -> None:
    record_path(store, SHARDS[0]).write_text('{"schema": 1, ')


def strip_record(store: TargetStore) -> None:
    record_path(store, SHARDS[0]).write_text("{}")


def change_types_of_record(store: TargetStore) -> None:
    edit_record(store, objects=3)


def record_other_rows(store: TargetStore) -> None:
    edit_record(store, num_rows=3)


def record_other_tower(store: TargetStore) -> None:
    edit_record(store, tower_fingerprint="0" * 64)


def record_other_shard(store: TargetStore) -> None:
    edit_record(store, shard_sha256="0" * 64)


def edit_record(store: TargetStore, **changes: object) -> None:
    path = record_path(store, SHARDS[0])
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


@pytest.mark.parametrize(
    "fault",
    [
        delete_record,
        delete_object,
        empty_object,
        garble_record,
        strip_record,
        change_types_of_record,
        record_other_rows,
        record_other_tower,
        record_other_shard,
    ],
)
def test_an_invalid_record_or_object_is_missing_and_recomputed(
    store: TargetStore, fault: Callable[[TargetStore], None], tree: Callable
) -> None:
    before = tree(store.path)
    fault(store)
    assert store.missing(SHARDS) == [SHARDS[0]]
    assert store.coverage(SHARDS).committed == 3
    with pytest.raises(MissingTarget, match=r"no rgb embedding of shard train-000000 .*precompute"):
        store.read(SHARDS[0], "embedding")
    assert store.commit(SHARDS[0], numbers(SHARDS[0]), {"seconds": 1.5})
    assert tree(store.path) == before


def test_coverage_separates_stale_from_missing(store: TargetStore) -> None:
    changed = dataclasses.replace(SHARDS[1], sha256="1" * 64)
    absent = shard(9)
    assert store.coverage([SHARDS[0], changed, absent]) == Coverage(committed=1, missing=1, stale=1)


@pytest.mark.parametrize("bad", [np.nan, np.inf, 1e6])
def test_numbers_that_are_not_finite_name_the_sample(tmp_path: Path, bad: float) -> None:
    store = TargetStore.create(tmp_path, provenance())
    arrays = {k: v.astype(np.float32) for k, v in numbers(SHARDS[0]).items()}
    arrays["patch"][2, 1, 3] = bad
    with pytest.raises(CorruptTarget, match="sample train_0_2: rgb patch: expected finite"):
        store.commit(SHARDS[0], arrays, {})
    assert not store.is_committed(SHARDS[0])


def test_an_absent_modality_may_not_have_numbers(tmp_path: Path) -> None:
    store = TargetStore.create(tmp_path, provenance())
    arrays = numbers(SHARDS[0])
    arrays["embedding"][1] = 0.0
    with pytest.raises(CorruptTarget, match="sample train_0_1: rgb embedding: expected NaN"):
        store.commit(SHARDS[0], arrays, {})


def test_wrong_shapes_raise_value_error(tmp_path: Path) -> None:
    store = TargetStore.create(tmp_path, provenance())
    arrays = numbers(SHARDS[0])
    with pytest.raises(ValueError, match="patch: expected .*, found nothing"):
        store.commit(SHARDS[0], {"embedding": arrays["embedding"]}, {})
    arrays["embedding"] = arrays["embedding"][:-1]
    with pytest.raises(ValueError, match=r"embedding: expected \(32, 6\), found \(31, 6\)"):
        store.commit(SHARDS[0], arrays, {})


@pytest.mark.slow
def test_a_kill_at_every_step_leaves_a_resumable_store(
    tmp_path: Path, kill_at_step: Callable, tree: Callable
) -> None:
    wanted = tree(filled(tmp_path / "whole", 2).path)
    step = 0
    while kill_at_step(lambda: filled(tmp_path / f"killed{step}", 2), step):  # noqa: B023
        resumed = filled(tmp_path / f"killed{step}", 2)
        assert tree(resumed.path) == wanted, f"killed at step {step}"
        step += 1
    assert step > 40


def test_a_store_is_named_after_modality_teacher_and_fingerprint(store: TargetStore) -> None:
    fp12 = store.provenance.tower_fingerprint[:12]
    assert store.path.name == f"rgb-teacher-one-{fp12}"
    described = json.loads((store.path / "provenance.json").read_text())
    assert described["tower_fingerprint"] == store.provenance.tower_fingerprint


def test_another_store_in_the_folder_is_refused(store: TargetStore, tmp_path: Path) -> None:
    with pytest.raises(FingerprintMismatch, match=r"differs in: shard_size"):
        TargetStore.create(store.path.parent, provenance(shard_size=64))
    with pytest.raises(MissingTarget, match="expected a target store"):
        TargetStore.open(tmp_path / "none")


def test_damaged_provenance_is_named_and_rewritten(store: TargetStore, tree: Callable) -> None:
    before = tree(store.path)
    for text in ("{", '{"modality": 3}', "[]", "null", "3"):
        (store.path / "provenance.json").write_text(text)
        with pytest.raises(CorruptTarget, match=r"provenance.json: cannot be read.*Delete it and"):
            TargetStore.create(store.path.parent, provenance())
    (store.path / "provenance.json").unlink()
    assert TargetStore.create(store.path.parent, provenance()).missing(SHARDS) == []
    assert tree(store.path) == before


def test_a_store_is_picklable(store: TargetStore) -> None:
    carried = pickle.loads(pickle.dumps(store))  # noqa: S301
    np.testing.assert_array_equal(
        carried.read(SHARDS[1], "embedding"), store.read(SHARDS[1], "embedding")
    )


def test_temporary_files_of_killed_writers_are_deleted(store: TargetStore, tree: Callable) -> None:
    before = tree(store.path)
    (store.path / "targets.zarr/train/embedding/c/0/.ab12.partial").write_bytes(b"half")
    TargetStore.create(store.path.parent, provenance())
    assert tree(store.path) == before


@pytest.mark.parametrize("dtype", ["float16", "float32"])
@pytest.mark.parametrize("shard_size", [4, 16, 48])
def test_an_object_has_the_predicted_length(tmp_path: Path, dtype: str, shard_size: int) -> None:
    outputs = {"embedding": (12,), "patch": (5, 12), "view_box": (3, 5)}
    made = provenance(outputs=outputs, dtype=dtype, shard_size=shard_size)
    store = TargetStore.planned(tmp_path, made)
    found = {
        output: len(store.array("train", output).encode(np.ones((2, *shape))))
        for output, shape in outputs.items()
    }
    assert object_bytes(made) == found
