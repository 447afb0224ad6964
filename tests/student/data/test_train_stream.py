"""The stream: one sequence for any number of processes and any start, targets joined by key,
geometry."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.datasets.resize import nearest, resize
from pipeline.modalities import KINDS, to_unit_range
from pipeline.shards.manifest import Manifest
from pipeline.shards.sample_reader import Decoded, SampleReader, list_samples
from pipeline.targets.reader import CachedTeacher
from pipeline.targets.views import ViewConfig, cut, draw_boxes
from pipeline.workspace import Workspace
from student.data.augment import Augment, Crop, fit
from student.data.target_join import WINDOW_SHARDS, TargetJoin
from student.data.train_stream import (
    TrainStream,
    assemble,
    cut_sample,
    drawn_view,
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
@pytest.mark.parametrize(
    "workers", [0, 5, *(pytest.param(number, marks=pytest.mark.proof) for number in (1, 2))]
)
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
    crops = [Crop(), Crop(mirrored=True), Crop()]
    batch = assemble(0, refs, samples, crops, (4, 5), {"nir": KINDS["nir"]})
    assert batch.inputs["nir"].shape == (3, 1, 4, 5)
    assert batch.label[0, 3].eq(255).all()
    assert batch.inputs["nir"][0, 0, 3].eq(0).all()
    np.testing.assert_array_equal(batch.label[1, :, 3:].numpy(), samples[1].label[:, ::-1])
    assert batch.label[1, :, :3].eq(255).all()
    assert batch.inputs["nir"][2].eq(0).all()
    assert batch.present.tolist() == [[True], [True], [False]]


def test_the_view_of_a_wide_picture_starts_left_of_the_teachers_square(parts):
    ref = replace(parts[0][0], height=40, width=80, present=(True,))
    batch = assemble(0, [ref], [decoded(40, 80)], [Crop()], (40, 80), {"nir": KINDS["nir"]})
    assert batch.view[0].tolist() == [0.0, -0.5, 1.0, 2.0, 0.0]


VIEWS = {"outputs": ["embedding", "patch"], "views": 3, "view_scale": [0.4, 0.9]}


@pytest.fixture(scope="module")
def view_parts(tmp_path_factory, make_config, make_workspace):
    config = make_config(tmp_path_factory.mktemp("views"), teacher=VIEWS)
    workspace = make_workspace(config)
    refs = list_samples(Manifest.load(workspace.dataset(config)), "train", tuple(config.modalities))
    teacher = CachedTeacher.open(config, workspace, ("embedding", "patch", "view_box"))
    join = TargetJoin(teacher, tuple(config.modalities), ("embedding", "patch"))
    return refs, config.specs(), join, ViewConfig.of(config)


def view_stream(view_parts, **fields):
    *parts, views = view_parts
    return make_stream(parts, views=views, **{"augment": Augment(48, 0.5), **fields})


def test_a_sample_shows_the_view_whose_rows_it_gets(view_parts):
    *_, specs, join, views = view_parts
    reader = SampleReader(specs)
    seen = set()
    for batch in view_stream(view_parts, stop=8):
        for b, ref in enumerate(batch.refs):
            view = drawn_view(3, batch.index * 5 + b, views)
            seen.add((ref.key, view))
            box = draw_boxes(ref.key, 64, 64, views)[view]
            row = ref.shard.keys.index(ref.key)
            whole = reader.read(ref)
            shown = {name: cut(array, box) for name, array in whole.arrays.items()}
            for m, (name, spec) in enumerate(specs.items()):
                store = join.source.stores[name]
                np.testing.assert_array_equal(store.read(ref.shard, "view_box")[row, view], box)
                for output in ("embedding", "patch"):
                    expected = store.read(ref.shard, output)[row, view].astype(np.float32)
                    np.testing.assert_array_equal(batch.targets[output][b, m].numpy(), expected)
                sized = nearest if spec.unit == "mm" else partial(resize, spec=spec)
                unit = to_unit_range(sized(shown[name], (48, 48)), spec)
                found = batch.inputs[name][b].permute(1, 2, 0).squeeze(-1).numpy()
                np.testing.assert_array_equal(found, unit)
            label = nearest(cut(whole.label, box), (48, 48))
            np.testing.assert_array_equal(batch.label[b].numpy(), label)
        assert batch.view.eq(torch.tensor([0.0, 0.0, 1.0, 1.0, 0.0])).all()
    assert len(seen) > 20
    assert {view for _, view in seen} == {0, 1, 2}


def test_depth_of_a_view_is_depth_that_was_measured(view_parts):
    (ref, *_), specs, *_ = view_parts
    whole = SampleReader(specs).read(ref)
    shown = cut_sample(whole, np.array([0.1, 0.2, 0.5, 0.5, 1.0], np.float32))
    bigger = fit(shown, (57, 57), specs)
    for name in ("depth", "lidar"):
        assert set(np.unique(bigger.arrays[name])) <= set(np.unique(shown.arrays[name]))
    assert set(np.unique(bigger.label)) <= set(np.unique(shown.label))
    assert {array.shape[:2] for array in bigger.arrays.values()} == {(57, 57)}


def test_views_without_a_teacher_are_the_same_crops(view_parts):
    with_targets, without = (
        list(view_stream(view_parts, stop=3, join=join)) for join in (view_parts[2], None)
    )
    for one, other in zip(with_targets, without, strict=True):
        assert torch.equal(one.label, other.label)
        assert all(torch.equal(one.inputs[name], other.inputs[name]) for name in one.inputs)
        assert other.targets == {}


@pytest.mark.proof
@pytest.mark.filterwarnings("ignore:This DataLoader will create:UserWarning")
def test_view_batches_do_not_depend_on_processes_or_start(view_parts):
    whole = list(view_stream(view_parts))
    for batch in loader(view_stream(view_parts, start=5), 2):
        assert same(batch, whole[batch.index])


def test_the_largest_view_sets_the_size_where_none_is_given(view_parts):
    batch = view_stream(view_parts, augment=Augment()).batch(0)
    *_, views = view_parts
    sides = []
    for b, ref in enumerate(batch.refs):
        box = draw_boxes(ref.key, 64, 64, views)[drawn_view(3, b, views)]
        sides.append(round(float(box[2]) * 64))
    assert batch.label.shape[1:] == (max(sides), max(sides))
    assert batch.label.ne(255).any()


def test_parts_of_a_step_are_the_step_for_any_number_of_processes(parts):
    whole = list(make_stream(parts, batch_size=4, start=2, stop=6))
    for size in (1, 2, 4):
        mine = 4 // size
        own = make_stream(parts, batch_size=1, start=2, stop=6)
        streams = [
            replace(own, parts=4, mine=range(rank * mine, (rank + 1) * mine))
            for rank in range(size)
        ]
        made = [list(stream) for stream in streams]
        for n, batch in enumerate(whole):
            pieces = [p for stream in made for p in stream[n * mine : (n + 1) * mine]]
            assert [ref.key for p in pieces for ref in p.refs] == [r.key for r in batch.refs]
            for name, value in batch.inputs.items():
                assert torch.equal(torch.cat([p.inputs[name] for p in pieces]), value)


def test_a_zoomed_batch_keeps_its_size_and_says_what_it_shows(parts):
    refs, specs, _ = parts
    stream = make_stream(parts, batch_size=4, augment=Augment(48, 0.5, scale=(0.5, 2.0)))
    for batch in stream:
        assert batch.label.shape == (4, 48, 48)
        for b, (top, left, height, width, mirrored) in enumerate(batch.view.tolist()):
            # The window, in pixels of the source, holds what the label shows.
            source = SampleReader(specs).read(batch.refs[b]).label
            side = min(source.shape)
            rows = (top + (np.arange(48) + 0.5) / 48 * height) * side
            columns = (left + (np.arange(48) + 0.5) / 48 * width) * side
            columns = columns[::-1] if mirrored else columns
            there = [
                where < have for where, have in zip((rows, columns), source.shape, strict=True)
            ]
            wanted = source[np.ix_(rows[there[0]].astype(int), columns[there[1]].astype(int))]
            inside = np.ix_(*there)
            assert (batch.label[b].numpy()[inside] == wanted).mean() > 0.93
