"""From descriptions to training: the scene column is joined, has weight, and is part of the run."""

from __future__ import annotations

from pathlib import Path

import pyarrow.parquet as pq
import pytest

from pipeline.config.config import Config
from pipeline.errors import MissingTarget
from pipeline.shards.prepare import prepare
from pipeline.workspace import Workspace
from student.runs.inputs import identify
from student.training.train import train
from teacher.encoding.describe import describe
from teacher.encoding.precompute import precompute


@pytest.mark.slow
def test_a_student_trains_with_the_scene_column(tmp_path: Path) -> None:
    data = {"adapter": "synthetic", "num_train": 4, "num_val": 1, "num_test": 1, "size_px": 64}
    student = {"backbone": "test_efficientnet", "weights": "none", "head_channels": 8}
    lscd = {"inter": 0.05, "intra": 0.0, "scene_column": True}
    config = Config.model_validate(
        {
            "name": "scene",
            "workspace": str(tmp_path),
            "dataset": data,
            "modalities": {"rgb": {}, "depth": {}},
            "store": {"shard_size": 2},
            "prepare": {"workers": 1},
            "teacher": {"device": "cpu"},
            "descriptions": {"source": "from_labels"},
            "student": student | {"lscd": lscd},
            "train": {"steps": 2, "batch_size": 2, "flip": 0.0, "threads": 1, "device": "cpu"},
        }
    )
    workspace = Workspace.of(config)
    prepare(config, workspace, progress=False)
    precompute(config, workspace, progress=False)
    with pytest.raises(MissingTarget):
        train(config, workspace, progress=False)
    describe(config, workspace, progress=False)
    assert train(config, workspace, progress=False).done == 2
    run = identify(config, workspace)
    assert len(run.identity["scene"]) == 64
    assert all(value > 0 for value in pq.read_table(run.metrics)["inter"].to_pylist())
