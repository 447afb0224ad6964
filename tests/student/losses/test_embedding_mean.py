"""Means of the teacher's embeddings: finite rows of every shard, in order, all views."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import torch

from student.losses.embedding_mean import mean_embeddings


def test_the_mean_is_over_finite_rows_of_all_shards_and_views():
    rng = np.random.default_rng(0)
    rows = {
        ("a", "rgb"): rng.standard_normal((3, 4)).astype(np.float16),
        ("b", "rgb"): rng.standard_normal((2, 4)).astype(np.float16),
        ("a", "nir"): rng.standard_normal((3, 2, 4)).astype(np.float16),
    }
    rows["a", "rgb"][1] = np.nan

    class Source:
        dim = 4

        def targets(self, shard):
            return {
                name: {"embedding": rows[shard.name, name]} if (shard.name, name) in rows else {}
                for name in ("rgb", "nir")
            }

    shards = [SimpleNamespace(name="a"), SimpleNamespace(name="b")]
    means = mean_embeddings(Source(), shards, ("rgb", "nir", "lidar"))
    kept = np.concatenate([rows["a", "rgb"][[0, 2]], rows["b", "rgb"]]).astype(float)
    wanted = [kept.mean(0), rows["a", "nir"].astype(float).reshape(-1, 4).mean(0), np.zeros(4)]
    torch.testing.assert_close(means, torch.tensor(np.array(wanted)).float())
