"""The example teacher from shards to a trained student, and own teachers in spawned processes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from examples.own_teacher import histograms
from pipeline.config.config import Config
from pipeline.shards.prepare import prepare
from pipeline.targets.lookup import resolve
from pipeline.workspace import Workspace
from student.training.train import train
from teacher.encoding.precompute import precompute

ROOT = Path(__file__).parents[2]
NAME = "examples.own_teacher:ColourHistogram"
MINE = """
from examples.own_teacher import ColourHistogram, histograms

class Mine(ColourHistogram):
    def identity(self):
        return {"version": 2}
"""
ENCODE_IN_A_CHILD = """
import sys
from pipeline.config.load import load_config
from pipeline.shards.manifest import Manifest
from pipeline.shards.prepare import prepare
from pipeline.workspace import Workspace
from teacher.encoding.child_process import EncodingProcess
from teacher.encoding.units import plan_towers, plan_units

if __name__ == "__main__":
    config = load_config(sys.argv[1])
    workspace = Workspace.of(config)
    prepare(config, workspace, progress=False)
    plans = plan_towers(config, workspace)
    for plan in plans:
        plan.create_stores(config, workspace)
    shards = Manifest.load(workspace.dataset(config)).all_shards
    with EncodingProcess(config) as process:
        print(process.encode(plan_units(plans, shards), lambda line: None))
    assert "my_teacher" in sys.modules
    print("left:", len(plan_units(plans, shards)))
"""


def config_of(folder: Path, name: str) -> Config:
    data = {"adapter": "synthetic", "num_train": 4, "num_val": 2, "num_test": 0, "size_px": 64}
    lscd = {"inter": 0.05, "intra": 0.0, "dense": 0.1, "dense_distance": "cosine"}
    return Config.model_validate(
        {
            "name": "own",
            "workspace": str(folder / "workspace"),
            "dataset": data,
            "modalities": {"rgb": {}, "event": {}},
            "store": {"shard_size": 2, "dtype": "float32"},
            "prepare": {"workers": 1},
            "teacher": {"name": name, "outputs": ["embedding", "patch"], "device": "cpu"},
            "student": {
                "backbone": "test_efficientnet",
                "weights": "none",
                "head_channels": 8,
                "lscd": lscd,
            },
            "train": {"steps": 2, "batch_size": 2, "flip": 0.0, "threads": 1, "device": "cpu"},
        }
    )


def test_a_histogram_counts_colours() -> None:
    pixels = torch.zeros(1, 3, 8, 8)
    pixels[0, 0, :, 4:] = 1.0
    whole, patches = histograms(pixels)
    assert whole.shape == (1, 24)
    assert patches.shape == (1, 16, 24)
    assert whole[0].nonzero().flatten().tolist() == [0, 7, 8, 16]
    assert whole[0, [0, 7]].tolist() == [0.5, 0.5]
    assert patches[0, 0, 0] == patches[0, 3, 7] == 1.0


def test_the_example_teaches_a_student(tmp_path: Path) -> None:
    config = config_of(tmp_path, NAME)
    workspace = Workspace.of(config)
    prepare(config, workspace, progress=False)
    precompute(config, workspace, progress=False)
    store = resolve(config, workspace, "rgb")
    assert store.provenance.tower["own"] == NAME
    assert store.provenance.outputs == {"embedding": (24,), "patch": (16, 24)}
    assert train(config, workspace, progress=False).done == 2
    metrics = next(workspace.runs.glob("*/metrics.parquet"))
    import pyarrow.parquet as pq

    table = pq.read_table(metrics)
    for term in ("inter", "dense"):
        assert np.isfinite(table[term].to_pylist()).all()
        assert any(table[term].to_pylist())


@pytest.mark.slow
def test_a_spawned_process_imports_a_teacher_from_pythonpath(tmp_path: Path) -> None:
    from pipeline.config.load import dump_config

    (tmp_path / "my_teacher.py").write_text(MINE)
    (tmp_path / "encode.py").write_text(ENCODE_IN_A_CHILD)
    config = tmp_path / "own.toml"
    config.write_text(dump_config(config_of(tmp_path, "my_teacher:Mine")))
    path = os.pathsep.join([str(tmp_path), str(ROOT)])
    done = subprocess.run(
        [sys.executable, str(tmp_path / "encode.py"), str(config)],
        env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "left: 0"
