"""Samples are found by key: decoded bytes equal the shard's own, and nothing else passes."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from pipeline.errors import CorruptShard, DatasetError
from pipeline.formats.image_codec import decode_image, decode_label
from pipeline.formats.shard_tar import read_shard
from pipeline.shards.manifest import Manifest
from pipeline.shards.sample_reader import SampleReader, list_samples, read_stored
from pipeline.workspace import Workspace
from tests.student.conftest import fresh, make_config, scenes

__all__ = ["fresh", "make_config", "scenes"]


@pytest.fixture
def opened(make_config):
    def open_(folder):
        config = make_config(folder)
        return config, Manifest.load(Workspace.of(config).dataset(config))

    return open_


def test_samples_equal_those_of_reading_the_shard_in_order(scenes, opened):
    config, manifest = opened(scenes)
    refs = {ref.key: ref for ref in list_samples(manifest, "train", ("depth", "rgb"))}
    specs = {name: config.specs()[name] for name in ("depth", "rgb")}
    reader = SampleReader(specs)
    seen = 0
    for shard in manifest.shards("train"):
        for key, members in read_shard(shard.path, shard.sha256):
            found = reader.read(refs[key])
            assert set(found.arrays) == set(specs)
            for name, spec in specs.items():
                expected = decode_image(members[f"{name}.npy.zst"], spec, key)
                np.testing.assert_array_equal(found.arrays[name], expected)
            np.testing.assert_array_equal(found.label, decode_label(members["label.npy.zst"], key))
            seen += 1
    assert seen == len(refs) == 12


def test_a_wrong_offset_raises_corrupt_shard_naming_the_member(scenes, opened):
    config, manifest = opened(scenes)
    one, two = list_samples(manifest, "train", tuple(config.modalities))[:2]
    reader = SampleReader(config.specs())
    with pytest.raises(CorruptShard, match=rf"{one.key}\.rgb\.npy\.zst.*found '{two.key}"):
        reader.read(replace(one, spans=two.spans))
    with pytest.raises(CorruptShard, match=rf"expected member {one.key}\.rgb\.npy\.zst"):
        reader.read(replace(one, spans={}))


def test_a_flipped_byte_is_refused(fresh, opened):
    config, manifest = opened(fresh)
    ref = list_samples(manifest, "train", ("rgb",))[0]
    data = bytearray(ref.shard.path.read_bytes())
    data[ref.spans["rgb.npy.zst"][0] + 60] ^= 1
    ref.shard.path.chmod(0o644)
    ref.shard.path.write_bytes(data)
    with pytest.raises(CorruptShard, match=r"expected sha256 .*any2seg prepare"):
        SampleReader({"rgb": config.specs()["rgb"]}).read(ref)


def test_read_stored_gives_the_bytes_of_the_member(scenes, opened):
    config, manifest = opened(scenes)
    refs = {ref.key: ref for ref in list_samples(manifest, "train", tuple(config.modalities))}
    shard = manifest.shards("train")[0]
    for key, members in read_shard(shard.path, shard.sha256):
        assert read_stored(shard, key, "rgb", refs[key].spans) == members["rgb.npy.zst"]


def test_read_stored_refuses_another_member_name(scenes, opened):
    config, manifest = opened(scenes)
    one, two = list_samples(manifest, "train", tuple(config.modalities))[:2]
    with pytest.raises(CorruptShard, match=rf"{one.key}\.rgb\.npy\.zst.*found '{two.key}"):
        read_stored(one.shard, one.key, "rgb", two.spans)
    offset, num_bytes = one.spans["rgb.npy.zst"]
    moved = {"rgb.npy.zst": (offset + 1, num_bytes)}
    with pytest.raises(CorruptShard, match=rf"{one.shard.path.name}: expected member {one.key}"):
        read_stored(one.shard, one.key, "rgb", moved)
    with pytest.raises(CorruptShard, match="expected member"):
        read_stored(one.shard, one.key, "rgb", {})


def test_a_split_without_any_of_the_modalities_is_an_error(scenes, opened):
    _, manifest = opened(scenes)
    with pytest.raises(DatasetError, match="has any of thermal"):
        list_samples(manifest, "train", ("thermal",))
    with pytest.raises(DatasetError, match="no split 'trian'"):
        list_samples(manifest, "trian", ("rgb",))
