"""`any2seg plan`: what it counts is what the stages then do, and it refuses what does not fit."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from flows.cli.main import app
from flows.planning import probe as probing
from flows.planning.plan_run import plan_run
from pipeline.config.config import Config
from pipeline.config.load import load_config
from pipeline.shards.prepare import prepare
from pipeline.storage.remote_path import RemotePath
from pipeline.workspace import Workspace
from teacher.encoding.precompute import precompute

CONFIG = """
name = "t"
workspace = "./workspace"
dataset = { adapter = "synthetic", num_train = 5, num_val = 2, num_test = 2, size_px = 64 }
modalities = { rgb = {}, depth = {}, event = {} }
store = { shard_size = 4 }
prepare = { workers = 1 }
train = { steps = 7, batch_size = 2 }
"""


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(probing, "WRITING_S", 0.05)
    monkeypatch.setattr(probing, "BATCH_S", 0.05)
    path = tmp_path / "t.toml"
    path.write_text(CONFIG)
    return path


@pytest.fixture
def config(path: Path) -> Config:
    return load_config(path)


def test_a_plan_of_an_empty_workspace_equals_the_run(config: Config) -> None:
    workspace = Workspace.of(config)
    plan = plan_run(config, workspace)
    assert not workspace.dataset(config).exists()
    assert not workspace.targets(config).exists()
    assert plan.probe is not None
    assert plan.prediction is not None
    assert plan.prediction.seconds > 0
    prepared = prepare(config, workspace, progress=False)
    assert plan.prepare.samples == prepared.details["samples"]
    assert len(plan.prepare.shards) == prepared.done == 4
    again = plan_run(config, workspace, probe=False)
    assert again.towers == plan.towers
    assert (again.num_units, again.prompts) == (plan.num_units, plan.prompts) == (8, 25)
    done = precompute(config, workspace, progress=False)
    assert sum(work.num_shards for work in plan.towers) == done.done - 1 == 12


def test_finished_stages_are_not_planned(config: Config) -> None:
    workspace = Workspace.of(config)
    prepare(config, workspace, progress=False)
    precompute(config, workspace, progress=False)
    plan = plan_run(config, workspace)
    assert (plan.num_units, plan.prompts, plan.num_bytes) == (0, 0, 0)
    assert (plan.probe, plan.prediction) == (None, None)
    (student,) = plan.students
    assert (student.steps, student.samples) == (7, 14)
    assert (student.scored_subsets, student.scored_samples) == (7, 2)


def test_the_command_prints_every_stage(path: Path) -> None:
    shown = CliRunner().invoke(app, ["plan", str(path)])
    assert shown.exit_code == 0, shown.output
    for text in (
        "prepare: 9 samples (train 5, val 2, test 2) into 4 shards, about ",
        "precompute: 8 units of a shard and a tower, 27 images, 25 class prompts; unprepared shards",
        "-bound (compute ",
        "train main: 7 steps, 14 samples",
        "evaluate main: 7 subsets of 2 samples",
        ": fits",
    ):
        assert text in " ".join(shown.output.split())


def test_json_holds_all_numbers_and_no_probe_takes_no_time(path: Path) -> None:
    shown = CliRunner().invoke(app, ["plan", str(path), "--json", "--no-probe"])
    found = json.loads(shown.output)
    assert found["prepare"]["samples"] == {"train": 5, "val": 2, "test": 2}
    assert found["prepare"]["seconds_on_one_core"] is None
    assert [work["num_images"] for work in found["precompute"]["towers"]] == [9, 9, 9]
    assert found["precompute"]["probe"] is None
    assert found["precompute"]["prediction"] is None
    assert found["fits"] is True


def test_a_run_that_does_not_fit_ends_with_1(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flows.planning.plan_run.free_bytes", lambda root: 1000)
    shown = CliRunner().invoke(app, ["plan", str(path), "--no-probe"])
    assert shown.exit_code == 1
    words = " ".join(shown.output.split())
    assert "has 1 kB: DOES NOT FIT" in words
    assert "of unknown size without a probe" in words
    assert " besides the shards; needs " in words


@pytest.mark.server
def test_a_plan_of_an_object_store_writes_its_probe_there_and_clears_it(
    config: Config, prefix: RemotePath
) -> None:
    remote = config.model_copy(update={"workspace": str(prefix)})
    workspace = Workspace(prefix)
    prepare(remote, workspace, progress=False)
    before = set(map(str, prefix.rglob("*")))
    plan = plan_run(remote, workspace)
    assert set(map(str, prefix.rglob("*"))) == before
    assert (plan.free, plan.fits) == (None, True)
    assert plan.prediction is not None
    assert plan.prediction.write_s > 0
    done = precompute(remote, workspace, progress=False)
    assert sum(work.num_shards for work in plan.towers) == done.done - 1
    written = [p for p in prefix.rglob("*") if "/targets.zarr/" in str(p) and "/c/" in str(p)]
    assert sum(path.stat().st_size for path in written) == plan.num_bytes
