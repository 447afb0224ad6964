"""The join of a batch: by key, holes by policy, bounded memory."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import CorruptTarget, MissingTarget
from pipeline.shards.manifest import Manifest
from pipeline.shards.sample_reader import list_samples
from pipeline.targets.reader import CachedTeacher
from pipeline.workspace import Workspace
from student.data.target_join import WINDOW_SHARDS, TargetJoin, apply_policy, open_join, taught
from student.data.train_stream import TrainStream

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

    dim = 1

    def __init__(self, keys=()):
        self.keys = keys

    def targets(self, shard):
        rows = np.arange(len(shard.keys), dtype=float)[:, None]
        rows[[key in self.keys for key in shard.keys]] = np.nan
        return {name: {"embedding": rows} for name in ("rgb", "depth")}

    def holes(self, shard):
        gone = frozenset(key for key in shard.keys if key in self.keys)
        return {"rgb": gone, "depth": frozenset()}


def test_a_join_follows_keys_when_their_order_changes(refs):
    keys = refs[0].shard.keys
    backwards = replace(refs[0].shard, keys=tuple(reversed(keys)))
    shuffled = [replace(refs[0], shard=backwards, key=key, present=(True,)) for key in keys]
    rows = TargetJoin(Numbered(), ("rgb",), ("embedding",)).rows(shuffled)
    assert rows["embedding"][:, 0, 0].tolist() == list(reversed(range(len(keys))))


def test_a_hole_is_an_error_that_names_the_sample(refs):
    ref = replace(refs[0], present=(True,))
    join = TargetJoin(Numbered(ref.shard.keys), ("rgb",), ("embedding",))
    with pytest.raises(MissingTarget, match=rf"rgb embedding of sample {ref.key}.*precompute"):
        join.rows([ref])
    with pytest.raises(MissingTarget, match="of sample unknown"):
        join.rows([replace(ref, key="unknown")])


def test_targets_are_read_once_a_window_and_let_go(config, refs):
    reads = Counter()
    join, *_ = open_join(config, Workspace.of(config), refs)

    class Counting:
        dim = join.source.dim

        def targets(self, shard):
            reads[shard.name] += 1
            return join.source.targets(shard)

    counting = TargetJoin(Counting(), join.modalities, join.outputs)
    list(TrainStream(refs, config.specs(), 5, 3, 0, 12, join=counting))
    assert reads
    assert set(reads.values()) == {1}
    assert len(counting._shards) <= 2 * WINDOW_SHARDS


@given(
    gone=st.sets(st.integers(0, 11)),
    absent=st.sets(st.integers(0, 11)),
    policy=st.sampled_from(["skip", "mask"]),
)
def test_each_policy_keeps_the_right_samples_and_counts_them(refs, gone, absent, policy):
    keys = {refs[n].key for n in gone}
    some = [replace(ref, present=(n not in absent, True)) for n, ref in enumerate(refs)]
    holes = [n for n in range(len(refs)) if n in gone - absent]
    source = Numbered(keys)
    if policy == "skip" and len(holes) == len(refs):
        with pytest.raises(MissingTarget, match="none of 12 training samples"):
            apply_policy(source, some, ("rgb", "depth"), policy)
        return
    kept, counts = apply_policy(source, some, ("rgb", "depth"), policy)
    assert counts.holes == ({"rgb": len(holes)} if holes else {})
    if policy == "skip":
        assert kept == [ref for n, ref in enumerate(some) if n not in holes]
        assert (counts.joined, counts.skipped, counts.masked) == (len(kept), len(holes), 0)
    else:
        assert [ref.key for ref in kept] == [ref.key for ref in some]
        assert [n for n, ref in enumerate(kept) if ref.untaught] == holes
        assert (counts.joined, counts.skipped, counts.masked) == (len(refs), 0, len(holes))
    if kept:
        # depth has NaN in the same rows, but nothing said so: a hole that came later is an error.
        join = TargetJoin(source, ("rgb",), ("embedding",))
        rows = join.rows([replace(ref, present=ref.present[:1]) for ref in kept])["embedding"]
        there = taught(kept)[:, :1]
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
        open_join(config, workspace, refs)
    for policy, number in (("skip", 8), ("mask", 12)):
        train = config.train.model_copy(update={"missing_targets": policy})
        chosen = config.model_copy(update={"train": train})
        join, kept, counts = open_join(chosen, workspace, refs)
        assert len(kept) == number
        assert counts.holes == {"depth": 4}
        for batch in TrainStream(kept, config.specs(), 4, 0, 0, 6, join=join):
            untaught = torch.tensor([ref.shard.index == 1 for ref in batch.refs])
            assert torch.equal(
                batch.taught,
                batch.present
                & ~torch.outer(untaught, torch.tensor([name == "depth" for name in MODALITIES])),
            )
            lengths = batch.targets["embedding"].norm(dim=-1)
            assert torch.allclose(lengths, batch.taught.float(), atol=1e-3)


def test_a_batch_without_any_answer_has_rows_of_zeros(refs):
    untaught = [replace(ref, present=(True,), untaught=(0,)) for ref in refs[:2]]
    rows = TargetJoin(Numbered(), ("rgb",), ("embedding", "patch")).rows(untaught)
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
    assert join.boxes(replace(ref, untaught=(1,))).shape == (2, 5)
    assert join.boxes(replace(ref, untaught=(0, 1))) is None
    with pytest.raises(CorruptTarget, match="depth was shown other views than rgb"):
        join.boxes(ref)
