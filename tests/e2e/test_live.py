"""The live teacher beside the cache: the same answers, the same losses, the same run."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from pipeline.config.config import Config
from pipeline.shards.manifest import Manifest
from pipeline.shards.prepare import prepare
from pipeline.targets.reader import CachedTeacher
from pipeline.workspace import Workspace
from student.runs.inputs import identify
from student.training.train import train
from teacher.encoding.live import LiveTeacher
from teacher.encoding.precompute import precompute


def make(folder: Path, **teacher: object) -> Config:
    lscd = {"inter": 0.05, "intra": 0.1, "dense": 0.05}
    return Config.model_validate(
        {
            "name": "live",
            "workspace": str(folder),
            "dataset": {
                "adapter": "synthetic",
                "num_train": 6,
                "num_val": 1,
                "num_test": 1,
                "size_px": 64,
            },
            "modalities": {"rgb": {}, "depth": {}},
            "store": {"shard_size": 4},
            "prepare": {"workers": 1},
            "teacher": {
                "outputs": ["embedding", "patch"],
                "batch_size": 3,
                "device": "cpu",
                **teacher,
            },
            "student": {
                "backbone": "test_efficientnet",
                "weights": "none",
                "head_channels": 8,
                "lscd": lscd,
            },
            "train": {"steps": 3, "batch_size": 2, "threads": 1, "device": "cpu", "workers": 1},
        }
    )


@pytest.mark.slow
@pytest.mark.parametrize("views", [0, 2])
def test_the_live_teacher_gives_what_the_cache_holds(tmp_path: Path, views: int) -> None:
    cached, live = (make(tmp_path / name, views=views) for name in ("cached", "live"))
    for config in (cached, live):
        prepare(config, Workspace.of(config), progress=False)
    precompute(cached, Workspace.of(cached), progress=False)
    outputs = ("embedding", "patch")
    stored = CachedTeacher.open(cached, Workspace.of(cached), outputs)
    source = LiveTeacher.open(live, Workspace.of(live))
    assert source.width("patch") == stored.width("patch")
    for shard in Manifest.load(Workspace.of(live).dataset(live)).shards("train"):
        one, other = source.targets(shard), stored.targets(shard)
        assert source.missing_targets(shard) == stored.missing_targets(shard)
        for name in live.modalities:
            for output in outputs:
                found = np.stack([one[name][output][row] for row in range(shard.num_rows)])
                kept = np.stack([other[name][output][row] for row in range(shard.num_rows)])
                assert found.dtype == kept.dtype
                # The same towers, batches and stored type: on one machine nothing is rounded twice.
                np.testing.assert_array_equal(found, kept)


@pytest.mark.slow
def test_a_run_with_the_live_teacher_is_the_run_from_the_cache(tmp_path: Path) -> None:
    losses, runs = [], []
    for name in ("cached", "live"):
        config = make(tmp_path / name)
        workspace = Workspace.of(config)
        prepare(config, workspace, progress=False)
        source = None
        if name == "live":
            source = LiveTeacher.open(config, workspace)
        else:
            precompute(config, workspace, progress=False)
        assert train(config, workspace, progress=False, live=source).done == 3
        run = identify(config, workspace)
        runs.append(run.identity["towers"])
        losses.append(pq.read_table(run.metrics)["loss"].to_pylist())
    assert runs[0] == runs[1]
    assert losses[0] == pytest.approx(losses[1], rel=1e-6)
