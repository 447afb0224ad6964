"""A student from a teacher of each family, from images to scores."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from flows.planning.coverage import coverage_rows
from flows.stages import load_stage
from pipeline.config.config import Config
from pipeline.errors import MissingTarget
from pipeline.shards.manifest import Manifest
from pipeline.targets.prompts import resolve_prompts
from pipeline.targets.reader import CachedTeacher
from pipeline.workspace import Workspace
from student.runs.inputs import open_inputs
from tests.teacher.families.tiny_checkpoints import write_clip, write_dino, write_siglip

FAMILIES: dict[str, Callable[..., object]] = {
    "clip": write_clip,
    "siglip": write_siglip,
    "dino": write_dino,
}


def make(root: Path, family: str) -> Config:
    has_text = family != "dino"
    return Config.model_validate(
        {
            "name": family,
            "workspace": str(root / "workspace"),
            "dataset": {
                "adapter": "synthetic",
                "num_train": 4,
                "num_val": 1,
                "num_test": 1,
                "size_px": 64,
            },
            "modalities": {"rgb": {}, "event": {}},
            "store": {"shard_size": 4},
            "prepare": {"workers": 1},
            "teacher": {
                "name": str(root / "teacher"),
                "outputs": ["embedding", "patch"],
                "batch_size": 3,
                "device": "cpu",
            },
            "student": {
                "backbone": "test_efficientnet",
                "weights": "none",
                "head_channels": 8,
                "lscd": {"inter": 0.05, "intra": 0.1 if has_text else 0.0, "dense": 0.05},
            },
            "train": {"steps": 2, "batch_size": 2, "threads": 1, "device": "cpu", "workers": 0},
        }
    )


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
def test_a_student_is_taught_and_scored(family: str, tmp_path: Path) -> None:
    FAMILIES[family](tmp_path / "teacher")
    config = make(tmp_path, family)
    workspace = Workspace.of(config)
    reports: dict[str, Any] = {
        name: load_stage(name)(config, workspace)
        for name in ("prepare", "prompts", "precompute", "train", "evaluate")
    }
    has_text = family != "dino"
    assert reports["prompts"].done == int(has_text)
    assert reports["precompute"].done == 3 * 2
    assert load_stage("precompute")(config, workspace).done == 0

    cached = CachedTeacher.open(config, workspace, ("embedding", "patch"))
    assert cached.width("embedding") == (12 if family == "clip" else 16)
    assert cached.field("patch") == (0.8 if family == "dino" else 1.0)
    if has_text:
        assert resolve_prompts(config, workspace).class_embedding().shape[1] == cached.width(
            "patch"
        )
    else:
        with pytest.raises(MissingTarget):
            resolve_prompts(config, workspace)
    manifest = Manifest.load(workspace.dataset(config))
    rows = coverage_rows(config, workspace, manifest)
    assert all(row.complete for row in rows)
    assert any(row.what == "class prompts" for row in rows) == has_text

    inputs = open_inputs(config, workspace)
    assert (inputs.prompts is not None) == has_text
    losses = pq.read_table(inputs.run.metrics, columns=["inter", "dense"]).to_pydict()
    assert all(value > 0 for values in losses.values() for value in values)
    assert inputs.run.evaluation.exists()
