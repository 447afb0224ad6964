"""`python -m teacher.tiny train`, end to end at the smallest size."""

from __future__ import annotations

import json

import pytest
import torch
from typer.testing import CliRunner

from pipeline.storage.files import read_json, sha256_file
from teacher.tiny.cli import app
from teacher.towers.text_tower import load_text_tower
from teacher.towers.vision_tower import load_tower


@pytest.mark.slow
def test_a_three_step_run_writes_a_loadable_scored_checkpoint(tmp_path):
    out = tmp_path / "made"
    sizes = {"scenes": 8, "steps": 3, "text-steps": 3, "batch": 4, "held-out": 2, "minutes": 5}
    flags = [word for name, value in sizes.items() for word in (f"--{name}", str(value))]
    result = CliRunner().invoke(app, ["train", "--out", str(out), *flags])
    assert result.exit_code == 0, result.output
    record = read_json(out / "provenance.json")
    assert record["taken"]["image_steps"] == record["taken"]["depth_steps"] == 3
    assert record["files"] == {name: sha256_file(out / name) for name in record["files"]}
    rows = [json.loads(line) for line in (out / "train_log.jsonl").read_text().splitlines()]
    assert {row["phase"] for row in rows} == {"text", "image", "depth"}
    tower, text = load_tower(str(out), "depth"), load_text_tower(str(out))
    output = tower.encode(torch.zeros(1, 3, 64, 64), patch=True)
    assert output.embedding.shape == text.encode(["a car"]).shape == (1, 128)
    assert output.patch is not None
    assert output.patch.shape == (1, 64, 128)
