"""The stream: one sequence for any number of processes and any start, targets joined by key,
geometry."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.errors import MissingTarget
from pipeline.manifest import Manifest
from pipeline.modalities import KINDS, to_unit_range
from pipeline.teacher_source import CachedTeacher
from pipeline.workspace import Workspace
from student.join import WINDOW_SHARDS, TargetJoin
from student.samples import Decoded, SampleReader, list_samples
from student.stream import (
    Augment,
    Placement,
    TrainStream,
    assemble,
    epoch_order,
    loader,
)


@pytest.fixture(scope="module")
def parts(scenes, make_config):
    config = make_config(scenes)
    workspace = Workspace.of(config)
    manifest = Manifest.load(workspace.dataset(config))
    refs = list_samples(manifest, "train", tuple(config.modalities))
    teacher = CachedTeacher.open(config, workspace, ("embedding", "patch"))
    return (
        refs,
        config.specs(),
        TargetJoin(teacher, tuple(config.modalities), ("embedding", "patch")),
    )


def make_stream(parts, start=0, stop=9, **fields):
    refs, specs, join = parts
    settings = {"batch_size": 5, "seed": 3, "augment": Augment(32, 0.5), "join": join} | fields
    return TrainStream(refs, specs, start=start, stop=stop, **settings)


def same(one, other):
    tensors = [
        (b.present, b.label, b.view, *b.inputs.values(), *b.targets.values()) for b in (one, other)
    ]
    keys = [[ref.key for ref in b.refs] for b in (one, other)]
    return keys[0] == keys[1] and all(torch.equal(a, b) for a, b in zip(*tensors, strict=True))


@given(
    shards=st.lists(st.integers(0, 9), min_size=1, max_size=60).map(sorted),
    seed=st.integers(0, 99),
    epoch=st.integers(0, 5),
)
@settings(deadline=None)
def test_an_epoch_is_a_permutation_in_windows_of_shards(shards, seed, epoch):
    order = epoch_order(shards, seed, epoch)
    assert sorted(order) == list(range(len(shards)))
    assert np.array_equal(order, epoch_order(shards, seed, epoch))
    visited = [shards[i] for i in order]
    # Once a window is over, none of its shards comes back.
    first = list(dict.fromkeys(visited))
    sizes = Counter(shards)
    place = 0
    while place < len(visited):
        window = set()
        for start in range(place, len(visited)):
            window.add(visited[start])
            if sum(sizes[s] for s in window) == start + 1 - place and len(window) <= WINDOW_SHARDS:
                place = start + 1
                break
        else:
            pytest.fail(f"no window closes after {place}: {visited}")
    assert len(first) == len(sizes)


def test_epochs_and_seeds_differ_and_every_epoch_has_every_sample(parts):
    refs = parts[0]
    keys = [ref.key for b in make_stream(parts, stop=12, batch_size=3) for ref in b.refs]
    epochs = [keys[i : i + len(refs)] for i in range(0, len(keys), len(refs))]
    assert len(epochs) == 3
    assert {frozenset(epoch) for epoch in epochs} == {frozenset(ref.key for ref in refs)}
    assert len({tuple(epoch) for epoch in epochs}) == 3
    other = [ref.key for b in make_stream(parts, stop=4, batch_size=3, seed=4) for ref in b.refs]
    assert other != epochs[0]


@pytest.mark.filterwarnings("ignore:This DataLoader will create:UserWarning")
@pytest.mark.parametrize("workers", [0, 1, 2, 5])
def test_starting_anywhere_with_any_number_of_processes_gives_the_suffix(parts, workers):
    # Five processes are more than the three shards: none may starve or change the order.
    whole = list(make_stream(parts))
    start = 4
    found = list(loader(make_stream(parts, start=start), workers))
    assert [b.index for b in found] == list(range(start, 9))
    for batch in found:
        assert same(batch, whole[batch.index])


def test_targets_are_joined_by_key(parts):
    _, specs, join = parts
    for batch in make_stream(parts, stop=5):
        for b, ref in enumerate(batch.refs):
            row = ref.shard.keys.index(ref.key)
            for m, name in enumerate(specs):
                store = join.source.stores[name]
                for output in ("embedding", "patch"):
                    expected = store.read(ref.shard, output)[row].astype(np.float32)
                    np.testing.assert_array_equal(batch.targets[output][b, m].numpy(), expected)


class Numbered:
    """A source that answers row r of a shard with the number r."""

    dim = 1

    def targets(self, shard):
        return {"rgb": {"embedding": np.arange(len(shard.keys), dtype=float)[:, None]}}


def test_a_join_follows_keys_when_their_order_changes(parts):
    ref = parts[0][0]
    keys = ref.shard.keys
    backwards = replace(ref.shard, keys=tuple(reversed(keys)))
    refs = [replace(ref, shard=backwards, key=key, present=(True,)) for key in keys]
    rows = TargetJoin(Numbered(), ("rgb",), ("embedding",)).rows(refs)
    assert rows["embedding"][:, 0, 0].tolist() == list(reversed(range(len(keys))))


def test_a_hole_is_an_error_that_names_the_sample(parts):
    ref = replace(parts[0][0], present=(True,))

    class Holes:
        dim = 2

        def targets(self, shard):
            return {"rgb": {"embedding": np.full((len(shard.keys), 2), np.nan)}}

    join = TargetJoin(Holes(), ("rgb",), ("embedding",))
    with pytest.raises(MissingTarget, match=rf"rgb embedding of sample {ref.key}.*precompute"):
        join.rows([ref])
    with pytest.raises(MissingTarget, match="of sample unknown"):
        join.rows([replace(ref, key="unknown")])


def test_chunks_are_read_once_a_window_and_let_go(parts):
    reads = Counter()
    join = parts[2]

    class Counting:
        dim = join.source.dim

        def targets(self, shard):
            reads[shard.name] += 1
            return join.source.targets(shard)

    counting = TargetJoin(Counting(), join.modalities, join.outputs)
    list(make_stream(parts, stop=12, join=counting))
    assert reads
    assert set(reads.values()) == {1}
    assert len(counting._shards) <= 2 * WINDOW_SHARDS


def test_augmentation_moves_all_modalities_and_the_label_alike(parts):
    _, specs, _ = parts
    reader = SampleReader(specs)
    seen = set()
    for batch in make_stream(parts, stop=12, join=None):
        for b, ref in enumerate(batch.refs):
            top, left, height, width, mirrored = (batch.view[b] * 64).round().int().tolist()
            assert (height, width) == (32, 32)
            seen.add((top, left, bool(mirrored)))
            whole = reader.read(ref)
            window = (slice(top, top + 32), slice(left, left + 32))
            turn = slice(None, None, -1) if mirrored else slice(None)
            label = whole.label[window][:, turn]
            np.testing.assert_array_equal(batch.label[b].numpy(), label)
            for name, spec in specs.items():
                unit = to_unit_range(whole.arrays[name], spec)[window][:, turn]
                found = batch.inputs[name][b].permute(1, 2, 0).squeeze(-1).numpy()
                np.testing.assert_array_equal(found, unit)
    assert len(seen) > 20
    assert {mirrored for *_, mirrored in seen} == {True, False}


def decoded(height, width, missing=()):
    rng = np.random.default_rng(height)
    arrays = {"nir": rng.integers(0, 256, (height, width), dtype=np.uint8)}
    label = rng.integers(0, 3, (height, width), dtype=np.uint8)
    return Decoded({n: a for n, a in arrays.items() if n not in missing}, label)


def test_smaller_pictures_are_padded_and_absent_ones_are_zero(parts):
    refs = [
        replace(ref, present=(p,)) for ref, p in zip(parts[0], (True, True, False), strict=False)
    ]
    samples = [decoded(3, 5), decoded(4, 2), decoded(2, 2, missing=("nir",))]
    places = [Placement(), Placement(mirrored=True), Placement()]
    batch = assemble(0, refs, samples, places, (4, 5), {"nir": KINDS["nir"]})
    assert batch.inputs["nir"].shape == (3, 1, 4, 5)
    assert batch.label[0, 3].eq(255).all()
    assert batch.inputs["nir"][0, 0, 3].eq(0).all()
    np.testing.assert_array_equal(batch.label[1, :, 3:].numpy(), samples[1].label[:, ::-1])
    assert batch.label[1, :, :3].eq(255).all()
    assert batch.inputs["nir"][2].eq(0).all()
    assert batch.present.tolist() == [[True], [True], [False]]


def test_the_view_of_a_wide_picture_starts_left_of_the_teachers_square(parts):
    ref = replace(parts[0][0], height=40, width=80, present=(True,))
    batch = assemble(0, [ref], [decoded(40, 80)], [Placement()], (40, 80), {"nir": KINDS["nir"]})
    assert batch.view[0].tolist() == [0.0, -0.5, 1.0, 2.0, 0.0]
