"""The export command on a real run: what it writes can be loaded, predicts, and can be uploaded."""

from __future__ import annotations

from pathlib import Path

import huggingface_hub
import numpy as np
import pytest
from typer.testing import CliRunner

from flows.cli.main import app
from pipeline.config.config import Config
from pipeline.shards.prepare import prepare
from pipeline.workspace import Workspace
from student.inference.segmenter import Segmenter
from student.runs.inputs import identify
from student.training.train import train


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    config = Config.model_validate(
        {
            "name": "toy",
            "workspace": str(tmp_path_factory.mktemp("workspace")),
            "dataset": {
                "adapter": "synthetic",
                "num_train": 4,
                "num_val": 2,
                "num_test": 1,
                "size_px": 64,
            },
            "modalities": {"rgb": {}, "depth": {}},
            "prepare": {"workers": 1},
            "student": {
                "backbone": "test_efficientnet",
                "weights": "none",
                "head_channels": 8,
                "lscd": {"inter": 0.0, "intra": 0.0},
            },
            "train": {"steps": 1, "batch_size": 2, "warmup_steps": 0, "device": "cpu"},
        }
    )
    workspace = Workspace.of(config)
    prepare(config, workspace, progress=False)
    train(config, workspace, progress=False)
    folder = identify(config, workspace).folder
    assert isinstance(folder, Path)
    return folder


def test_export_writes_a_folder_that_predicts(run_folder: Path, tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["export", str(run_folder), "-o", str(tmp_path / "model")])
    assert done.exit_code == 0, done.output
    assert "README.md, config.json, model.safetensors" in done.output
    scene = {"rgb": np.full((40, 72, 3), 90, np.uint8)}
    saved = Segmenter.from_pretrained(tmp_path / "model", device="cpu").segment(scene)
    np.testing.assert_array_equal(
        saved.logits, Segmenter.from_run(run_folder, "cpu").segment(scene).logits
    )


def test_push_uploads_the_exported_folder(
    run_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent = []

    class Hub:
        def create_repo(self, name: str, exist_ok: bool) -> None:
            sent.append((name, exist_ok))

        def upload_folder(self, repo_id: str, folder_path: Path) -> str:
            sent.append((repo_id, sorted(p.name for p in folder_path.iterdir())))
            return "there"

    monkeypatch.setattr(huggingface_hub, "HfApi", Hub)
    command = ["export", str(run_folder), "-o", str(tmp_path), "--push", "lab/toy"]
    done = CliRunner().invoke(app, command)
    assert done.exit_code == 0, done.output
    names = ["README.md", "config.json", "model.safetensors"]
    assert sent == [("lab/toy", True), ("lab/toy", names)]
    assert "Uploaded: there" in done.output
