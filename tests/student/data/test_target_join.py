"""The join of a batch: by key with no wrong pair, missing targets by policy, bounded memory."""

from __future__ import annotations

import pickle
import shutil
from collections import Counter
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.errors import CorruptShard, CorruptTarget, MissingTarget
from pipeline.shards.manifest import Manifest
from pipeline.shards.prepare import prepare
from pipeline.shards.sample_reader import SampleRef, list_samples
from pipeline.targets.lookup import point_to_store
from pipeline.targets.provenance import TargetProvenance
from pipeline.targets.reader import CachedTeacher
from pipeline.targets.store import TargetStore
from pipeline.workspace import Workspace
from student.data.target_join import WINDOW_SHARDS, TargetJoin, apply_policy, has_target, open_join
from student.data.train_stream import TrainStream
from student.runs.inputs import open_inputs
from tests.pipeline.targets.test_reader import DIM, row_of, shard_of, targets_of, teach

MODALITIES = ("rgb", "depth", "event", "lidar")


@pytest.fixture(scope="module")
def config(scenes, make_config):
    return make_config(scenes)


@pytest.fixture(scope="module")
def refs(config):
    manifest = Manifest.load(Workspace.of(config).dataset(config))
    return list_samples(manifest, "train", tuple(config.modalities))


class Numbered:
    """A source that answers row r of a shard with the number r; NaN for `keys`."""

    def __init__(self, keys=()):
        self.keys = keys

    def width(self, output):
        return 1

    def field(self, output):
        return 1.0

    def targets(self, shard):
        rows = np.arange(len(shard.keys), dtype=float)[:, None]
        rows[[key in self.keys for key in shard.keys]] = np.nan
        return {name: {"embedding": rows} for name in ("rgb", "depth")}

    def missing_targets(self, shard):
        missing = frozenset(key for key in shard.keys if key in self.keys)
        return {"rgb": missing, "depth": frozenset()}


class ByKey:
    """A source whose rows only the sample of that key and modality has; `missing` are NaN."""

    def __init__(self, missing, without=()):
        self.missing, self.without = missing, without

    def width(self, output):
        return DIM

    def field(self, output):
        return 1.0

    def targets(self, shard):
        targets = targets_of(shard, self.missing)
        return targets | {modality: {} for modality in self.without}

    def missing_targets(self, shard):
        def keys(modality):
            whole = modality in self.without
            pairs = zip(shard.keys, shard.present[modality], strict=True)
            return [k for k, there in pairs if there and (whole or k in self.missing[modality])]

        return {modality: frozenset(keys(modality)) for modality in ("rgb", "depth")}


def ref_of(shard, key: str) -> SampleRef:
    """The sample of rgb and depth with this key in the shard."""
    row = shard.keys.index(key)
    present = tuple(shard.present[modality][row] for modality in ("rgb", "depth"))
    return SampleRef(key, shard, 4, 4, "", "", present, {})


KEYS = [f"train_{n:03d}" for n in range(12)]
SOME_KEYS = st.sets(st.sampled_from(KEYS))


@given(
    keys=st.permutations(KEYS),
    cuts=st.sets(st.integers(1, 11), max_size=3),
    wanted=st.lists(st.sampled_from(KEYS), min_size=1, max_size=30),
    absent=SOME_KEYS,
    depth_missing=SOME_KEYS,
    rgb_missing=SOME_KEYS,
    policy=st.sampled_from(["error", "skip", "mask"]),
)
def test_shuffled_dropped_and_repeated_keys_give_no_wrong_pair(
    keys, cuts, wanted, absent, depth_missing, rgb_missing, policy
):
    """Keys in any order in any shards, samples in any order and number, under every policy."""
    parts = [keys[start:stop] for start, stop in pairwise([0, *sorted(cuts), 12])]
    shards = [shard_of(part, [k not in absent for k in part], n) for n, part in enumerate(parts)]
    shard_with = {key: shard for shard in shards for key in shard.keys}
    refs = [ref_of(shard_with[key], key) for key in wanted]
    missing = {"rgb": rgb_missing, "depth": depth_missing}
    source = ByKey(missing)
    lacks = {key: [m for m in missing if key in missing[m] - absent] for key in KEYS}
    bad = [key for key in wanted if lacks[key]]
    kept = [key for key in wanted if policy != "skip" or not lacks[key]]
    join = TargetJoin(source, ("rgb", "depth"), ("embedding",))
    if not kept:
        with pytest.raises(MissingTarget, match=f"none of {len(wanted)} training samples"):
            apply_policy(source, refs, ("rgb", "depth"), policy)
        return
    chosen, counts = apply_policy(source, refs, ("rgb", "depth"), policy)
    assert [ref.key for ref in chosen] == kept
    if policy == "error" and bad:
        with pytest.raises(MissingTarget, match=rf"embedding of sample {bad[0]}"):
            join.rows(chosen)
        return
    there = has_target(chosen)
    rows = join.rows(chosen)["embedding"]
    for b, key in enumerate(kept):
        for m, modality in enumerate(("rgb", "depth")):
            expected = key not in absent and modality not in lacks[key]
            assert there[b, m] == expected
            wanted_row = row_of(key, modality) if expected else np.zeros(DIM)
            np.testing.assert_array_equal(rows[b, m], wanted_row)
    if policy != "error":
        expected_counts = {m: sum(m in lacks[key] for key in wanted) for m in missing}
        assert counts.missing == {m: number for m, number in expected_counts.items() if number}
    assert counts.joined == len(kept)
    assert counts.skipped == (len(bad) if policy == "skip" else 0)
    assert counts.masked == (len(bad) if policy == "mask" else 0)


def test_a_modality_without_targets_for_the_shard_is_missing_for_every_sample():
    shard = shard_of(["a", "b"], [True, False])
    source = ByKey({"rgb": set(), "depth": set()}, without=("depth",))
    refs = [ref_of(shard, "b"), ref_of(shard, "a")]
    skipped, _ = apply_policy(source, refs, ("rgb", "depth"), "skip")
    assert [ref.key for ref in skipped] == ["b"]
    masked, _ = apply_policy(source, refs, ("rgb", "depth"), "mask")
    assert has_target(masked).tolist() == [[False, False], [True, False]]
    rows = TargetJoin(source, ("rgb", "depth"), ("embedding",)).rows(masked)["embedding"]
    np.testing.assert_array_equal(rows[1, 0], row_of("a", "rgb"))
    assert not rows[0].any()
    assert not rows[1, 1].any()
    with pytest.raises(MissingTarget, match="no depth embedding of sample a"):
        TargetJoin(source, ("rgb", "depth"), ("embedding",)).rows(refs)


def test_a_key_that_the_manifest_lists_twice_is_refused():
    shard = shard_of(["a", "b", "a"])
    join = TargetJoin(ByKey({"rgb": set(), "depth": set()}), ("rgb", "depth"), ("embedding",))
    with pytest.raises(CorruptShard, match="3 samples with 2 keys"):
        join.rows([ref_of(shard, "b")])


def test_every_sample_of_every_shard_gets_its_own_stored_rows(fresh, make_config):
    """Through real stores, as a loader process has them."""
    config = make_config(fresh)
    workspace = Workspace.of(config)
    manifest = Manifest.load(workspace.dataset(config))
    names = ("rgb", "depth")
    stores = {name: teach((config, workspace, manifest), name) for name in names}
    source = pickle.loads(pickle.dumps(CachedTeacher(stores)))  # noqa: S301
    join = pickle.loads(pickle.dumps(TargetJoin(source, names, ("embedding",))))  # noqa: S301
    num_pairs = 0
    for split in manifest.splits:
        refs = list_samples(manifest, split, names)[::-1]
        there = has_target(refs)
        for ref, rows, pairs in zip(refs, join.rows(refs)["embedding"], there, strict=True):
            for m, name in enumerate(names):
                np.testing.assert_array_equal(rows[m], row_of(ref.key, name) * int(pairs[m]))
        num_pairs += int(there.sum())
    assert num_pairs == 2 * manifest.num_samples == 40


DENSE_DIM, PATCHES = 6, 4


def patch_of(key, modality):
    """Patch rows that only this sample and modality of the dense teacher have."""
    rng = np.random.default_rng([*f"dense/{key}/{modality}".encode()])
    return rng.random((PATCHES, DENSE_DIM)).astype(np.float16)


def teach_dense(config, workspace, manifest, modality):
    """The dense teacher's store; its embeddings differ from the first teacher's in width."""
    spec = config.specs()[modality]
    outputs = {"embedding": (DENSE_DIM,), "patch": (PATCHES, DENSE_DIM)}
    fields = {"teacher": "dense", "spec": spec.identity(), "tower": {"weights": "dense"}}
    provenance = TargetProvenance(
        modality=modality, outputs=outputs, shard_size=config.store.shard_size, **fields
    )
    store = TargetStore.create(workspace.targets(config), provenance)
    for shard in manifest.all_shards:
        patch = np.stack([patch_of(key, modality) for key in shard.keys])
        store.commit(shard, {"embedding": patch[:, 0], "patch": patch}, {})
    point_to_store(config.for_teacher("dense_teacher"), workspace, store)
    return store


@pytest.fixture(scope="module")
def two_teachers(scenes, make_config, tmp_path_factory):
    """A workspace with the embeddings of one teacher and the patches of another."""
    folder = tmp_path_factory.mktemp("two") / "workspace"
    shutil.copytree(scenes, folder)
    two = {"teacher": {"name": "first"}, "dense_teacher": {"name": "dense"}}
    config = make_config(folder, modalities={"rgb": {}, "depth": {}}, **two)
    workspace = Workspace.of(config)
    shutil.rmtree(workspace.dataset(config), ignore_errors=True)
    prepare(config, workspace, progress=False)
    manifest = Manifest.load(workspace.dataset(config))
    for name in config.modalities:
        teach((config, workspace, manifest), name)
        teach_dense(config, workspace, manifest, name)
    return config, workspace, manifest


@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_two_stores_of_a_modality_never_serve_each_others_rows(two_teachers, data):
    """Whatever either of them lacks: embeddings from the first, patches from the second, by key."""
    config, workspace, manifest = two_teachers
    names = tuple(config.modalities)
    source = CachedTeacher.open(config, workspace, ("embedding", "patch"))
    shards = manifest.shards("train")
    columns = {"embedding": source.stores, "patch": source.dense_stores}
    pairs = [(o, n, s) for o in columns for n in names for s in range(len(shards))]
    lost = data.draw(st.lists(st.sampled_from(pairs), max_size=5, unique=True), "lost")
    refs = data.draw(st.permutations(list_samples(manifest, "train", names)), "order")
    records = [columns[o][n].record_path(shards[s]) for o, n, s in lost]
    for record in records:
        record.rename(record.with_suffix(".lost"))
    try:
        check_two_columns(source, refs, names, {(n, shards[s].name) for _, n, s in lost})
    finally:
        for record in records:
            record.with_suffix(".lost").rename(record)


def check_two_columns(source, refs, names, lost):
    missing = {(n, ref.key) for ref in refs for n in names if (n, ref.shard.name) in lost}
    if len({key for _, key in missing}) < len(refs):
        kept, counts = apply_policy(source, refs, names, "skip")
        assert {ref.key for ref in kept} == {r.key for r in refs} - {k for _, k in missing}
        assert counts.skipped == len(refs) - len(kept)
    masked, _ = apply_policy(source, refs, names, "mask")
    rows = TargetJoin(source, names, ("embedding", "patch")).rows(masked)
    assert rows["embedding"].shape[2:] == (DIM,)
    assert rows["patch"].shape[-1] == DENSE_DIM
    for b, ref in enumerate(masked):
        for m, name in enumerate(names):
            there = int((name, ref.key) not in missing)
            np.testing.assert_array_equal(rows["embedding"][b, m], row_of(ref.key, name) * there)
            np.testing.assert_array_equal(rows["patch"][b, m], patch_of(ref.key, name) * there)
    for name in {n for n, _ in lost}:
        with pytest.raises(MissingTarget, match="shards have no"):
            source.require_complete([ref.shard for ref in refs if (name, ref.shard.name) in lost])


def test_a_damaged_patch_of_the_second_teacher_is_never_joined(two_teachers):
    config, workspace, manifest = two_teachers
    store = CachedTeacher.open(config, workspace, ("patch",)).dense_stores["rgb"]
    shard = manifest.shards("train")[0]
    file = store.array("train", "patch").object_path(shard.index)
    whole = file.read_bytes()
    ref = next(r for r in list_samples(manifest, "train", ("rgb",)) if r.shard == shard)
    try:
        file.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
        source = CachedTeacher.open(config, workspace, ("embedding", "patch"))
        with pytest.raises(CorruptTarget, match=str(file)):
            TargetJoin(source, ("rgb",), ("patch",)).rows([ref])
    finally:
        file.write_bytes(whole)


def test_only_the_teachers_that_a_loss_reads_are_opened(two_teachers):
    config, workspace, _ = two_teachers
    first = CachedTeacher.open(config, workspace, ("embedding",))
    dense = CachedTeacher.open(config, workspace, ("patch",))
    assert (set(first.stores), set(first.dense_stores)) == ({"rgb", "depth"}, set())
    assert (set(dense.stores), set(dense.dense_stores)) == (set(), {"rgb", "depth"})


def test_targets_of_other_shard_bytes_are_never_joined(fresh, make_config):
    """Neither after a shard was written again, nor those of another shard of the same size."""
    config = make_config(fresh)
    workspace = Workspace.of(config)
    manifest = Manifest.load(workspace.dataset(config))
    source = CachedTeacher({"rgb": teach((config, workspace, manifest), "rgb")})
    one, other = manifest.shards("train")[:2]
    ref = next(r for r in list_samples(manifest, "train", ("rgb",)) if r.shard == one)
    swapped = replace(other, index=one.index, path=one.path)
    key = {one.sha256: ref.key, other.sha256: other.keys[0]}
    for shard in (replace(one, sha256="0" * 64), swapped):
        changed = replace(ref, shard=shard, key=key.get(shard.sha256, ref.key))
        with pytest.raises(MissingTarget, match=f"rgb embedding of sample {changed.key}"):
            TargetJoin(source, ("rgb",), ("embedding",)).rows([changed])
        masked, counts = apply_policy(source, [changed], ("rgb",), "mask")
        assert not has_target(masked).any()
        assert counts.missing == {"rgb": 1}
    rows = TargetJoin(source, ("rgb",), ("embedding",)).rows([ref])["embedding"]
    np.testing.assert_array_equal(rows[0, 0], row_of(ref.key, "rgb"))


def test_a_join_follows_keys_when_their_order_changes(refs):
    keys = refs[0].shard.keys
    backwards = replace(refs[0].shard, keys=tuple(reversed(keys)))
    shuffled = [replace(refs[0], shard=backwards, key=key, present=(True,)) for key in keys]
    rows = TargetJoin(Numbered(), ("rgb",), ("embedding",)).rows(shuffled)
    assert rows["embedding"][:, 0, 0].tolist() == list(reversed(range(len(keys))))


def test_a_missing_target_is_an_error_that_names_the_sample(refs):
    ref = replace(refs[0], present=(True,))
    join = TargetJoin(Numbered(ref.shard.keys), ("rgb",), ("embedding",))
    with pytest.raises(MissingTarget, match=rf"rgb embedding of sample {ref.key}.*precompute"):
        join.rows([ref])
    with pytest.raises(MissingTarget, match="of sample unknown"):
        join.rows([replace(ref, key="unknown")])


def test_targets_are_read_once_a_window_and_let_go(config, refs):
    reads = Counter()
    join, *_ = open_join(open_inputs(config, Workspace.of(config)), refs)

    class Counting:
        width = join.source.width

        def targets(self, shard):
            reads[shard.name] += 1
            return join.source.targets(shard)

    counting = TargetJoin(Counting(), join.modalities, join.outputs)
    list(TrainStream(refs, config.specs(), 5, 3, 0, 12, join=counting))
    assert reads
    assert set(reads.values()) == {1}
    assert len(counting._shards) <= 2 * WINDOW_SHARDS


@given(
    missing=st.sets(st.integers(0, 11)),
    absent=st.sets(st.integers(0, 11)),
    policy=st.sampled_from(["skip", "mask"]),
)
def test_each_policy_keeps_the_right_samples_and_counts_them(refs, missing, absent, policy):
    keys = {refs[n].key for n in missing}
    some = [replace(ref, present=(n not in absent, True)) for n, ref in enumerate(refs)]
    unfit = [n for n in range(len(refs)) if n in missing - absent]
    source = Numbered(keys)
    if policy == "skip" and len(unfit) == len(refs):
        with pytest.raises(MissingTarget, match="none of 12 training samples"):
            apply_policy(source, some, ("rgb", "depth"), policy)
        return
    kept, counts = apply_policy(source, some, ("rgb", "depth"), policy)
    assert counts.missing == ({"rgb": len(unfit)} if unfit else {})
    if policy == "skip":
        assert kept == [ref for n, ref in enumerate(some) if n not in unfit]
        assert (counts.joined, counts.skipped, counts.masked) == (len(kept), len(unfit), 0)
    else:
        assert [ref.key for ref in kept] == [ref.key for ref in some]
        assert [n for n, ref in enumerate(kept) if ref.missing_targets] == unfit
        assert (counts.joined, counts.skipped, counts.masked) == (len(refs), 0, len(unfit))
    if kept:
        # depth has NaN in the same rows, which no policy saw: such a target is an error later.
        join = TargetJoin(source, ("rgb",), ("embedding",))
        rows = join.rows([replace(ref, present=ref.present[:1]) for ref in kept])["embedding"]
        there = has_target(kept)[:, :1]
        wanted = torch.tensor([[float(ref.shard.keys.index(ref.key))] for ref in kept])
        assert torch.equal(rows[..., 0], wanted.masked_fill(~there, 0))


def test_a_store_without_a_shard_serves_each_policy(fresh, make_config):
    config = make_config(fresh)
    workspace = Workspace.of(config)
    manifest = Manifest.load(workspace.dataset(config))
    refs = list_samples(manifest, "train", MODALITIES)
    store = CachedTeacher.open(config, workspace).stores["depth"]
    (store.path / "ledger/train/train-000001.json").unlink()
    with pytest.raises(MissingTarget, match="1 of 3 shards have no depth"):
        open_join(open_inputs(config, workspace), refs)
    for policy, number in (("skip", 8), ("mask", 12)):
        train = config.train.model_copy(update={"missing_targets": policy})
        chosen = config.model_copy(update={"train": train})
        join, kept, counts = open_join(open_inputs(chosen, workspace), refs)
        assert len(kept) == number
        assert counts.missing == {"depth": 4}
        for batch in TrainStream(kept, config.specs(), 4, 0, 0, 6, join=join):
            in_shard = torch.tensor([ref.shard.index == 1 for ref in batch.refs])
            is_depth = torch.tensor([name == "depth" for name in MODALITIES])
            expected = batch.present & ~torch.outer(in_shard, is_depth)
            assert torch.equal(batch.has_target, expected)
            lengths = batch.targets["embedding"].norm(dim=-1)
            assert torch.allclose(lengths, batch.has_target.float(), atol=1e-3)


def test_a_batch_without_any_target_has_rows_of_zeros(refs):
    masked = [replace(ref, present=(True,), missing_targets=(0,)) for ref in refs[:2]]
    rows = TargetJoin(Numbered(), ("rgb",), ("embedding", "patch")).rows(masked)
    assert rows["embedding"].shape == (2, 1, 1)
    assert rows["patch"].shape == (2, 1, 1, 1)
    assert not any(value.any() for value in rows.values())


def test_modalities_that_were_shown_other_views_are_refused(refs):
    class Disagreeing(Numbered):
        def targets(self, shard):
            boxes = np.zeros((len(shard.keys), 2, 5), np.float32)
            return {"rgb": {"view_box": boxes}, "depth": {"view_box": boxes + 1}}

    ref = replace(refs[0], present=(True, True))
    join = TargetJoin(Disagreeing(), ("rgb", "depth"), ())
    assert join.boxes(replace(ref, missing_targets=(1,))).shape == (2, 5)
    assert join.boxes(replace(ref, missing_targets=(0, 1))) is None
    with pytest.raises(CorruptTarget, match="depth was shown other views than rgb"):
        join.boxes(ref)
