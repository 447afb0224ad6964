"""Scene descriptions by key: the right row, holes by name, memory bounded."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from pipeline.config.config import Config
from pipeline.errors import MissingTarget
from student.data.scene_targets import KEPT_SHARDS, SceneDescriptions
from tests.student.losses.naive import unit


class Store:
    """Rows of shards by name; what is not there is not committed."""

    def __init__(self, rows):
        self.kept, self.reads = rows, []

    def is_committed(self, shard):
        return shard.name in self.kept

    def read(self, shard, output):
        assert output == "embedding"
        self.reads.append(shard.name)
        return self.kept[shard.name]


@pytest.fixture
def shards(monkeypatch):
    monkeypatch.setattr("student.data.scene_targets.in_slot", lambda shard, slot: shard)
    return [SimpleNamespace(name=f"s{i}", keys=(f"{i}a", f"{i}b")) for i in range(KEPT_SHARDS + 2)]


def test_rows_follow_keys_and_a_shard_is_read_once_while_it_is_in_use(shards):
    store = Store({s.name: unit(2, 3, seed=i).numpy() for i, s in enumerate(shards)})
    scenes = SceneDescriptions(store)
    refs = [SimpleNamespace(shard=shards[i], key=k) for i, k in ((1, "1b"), (0, "0a"), (1, "1a"))]
    wanted = [store.kept["s1"][1], store.kept["s0"][0], store.kept["s1"][0]]
    assert torch.equal(scenes.rows(refs), torch.tensor(np.array(wanted)).float())
    scenes.rows(refs)
    assert store.reads == ["s1", "s0"]
    for shard in shards:
        scenes.rows([SimpleNamespace(shard=shard, key=shard.keys[0])])
    assert len(scenes._shards) == KEPT_SHARDS


def test_a_sample_without_a_description_is_named(shards):
    rows = unit(2, 3).numpy()
    rows[1] = np.nan
    scenes = SceneDescriptions(Store({"s0": rows}))
    for place, key in ((0, "0b"), (0, "other"), (1, "1a")):
        with pytest.raises(MissingTarget, match=rf"sample {key} .*any2seg describe"):
            scenes.rows([SimpleNamespace(shard=shards[place], key=key)])


def test_the_column_needs_descriptions(scenes, make_config):
    lscd = {"inter": 0.05, "scene_column": True}
    with pytest.raises(ValueError, match="scene_column = true needs descriptions"):
        make_config(scenes, student={"lscd": lscd})
    config = make_config(scenes, student={"lscd": lscd}, descriptions={"source": "from_labels"})
    assert isinstance(config, Config)
