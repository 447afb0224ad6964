"""Evaluation end to end on a tiny run: contents, skip, what makes it run again."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image

from pipeline.errors import CheckpointError, DatasetError
from pipeline.manifest import Manifest
from pipeline.workspace import Workspace
from student.evaluate import evaluate
from student.run import identify
from student.train import train


@pytest.fixture(scope="module")
def trained(scenes, make_config, tmp_path_factory):
    import shutil

    folder = tmp_path_factory.mktemp("trained")
    shutil.copytree(scenes, folder, dirs_exist_ok=True)
    config = make_config(folder)
    workspace = Workspace.of(config)
    train(config, workspace, progress=False)
    report = evaluate(config, workspace, progress=False)
    return config, workspace, identify(config, workspace), report


def scores(run):
    return json.loads(run.evaluation.read_text())


def test_every_subset_is_scored(trained):
    config, workspace, run, report = trained
    found = scores(run)
    rows = Manifest.load(workspace.dataset(config)).rows("val")
    conditions = {row["condition"] for row in rows}
    assert report.done == len(found["subsets"]) == 15
    assert found["step"] == 6
    assert found["num_samples"] == 6
    assert sum(found["support"]) <= 6 * 64 * 64
    for row in found["subsets"]:
        assert 0 <= row["miou"] <= 1
        assert row["num_samples"] == 6
        present = [k for k, pixels in enumerate(found["support"]) if pixels]
        assert [k for k, iou in enumerate(row["per_class"]) if iou is not None] == present
        assert set(row["per_condition"]) == conditions
    assert found["all"] == found["subsets"][-1]["miou"]
    assert found["worst"]["miou"] == min(row["miou"] for row in found["subsets"])


def test_pictures_are_class_ids_of_the_samples_named(trained):
    _, _, run, _ = trained
    found = scores(run)
    assert len(found["pictures"]) == 3
    assert len({picture["condition"] for picture in found["pictures"]}) == 3
    for picture in found["pictures"]:
        folder = run.pictures / picture["key"]
        names = {"label", "rgb", "depth", "event", "lidar", "rgb+depth+event+lidar"}
        assert {path.stem for path in folder.iterdir()} == names
        for path in folder.iterdir():
            ids = np.array(Image.open(path))
            assert ids.shape == (64, 64)
            assert ids.max() < 25


def test_a_second_call_is_skipped(trained):
    config, workspace, run, _ = trained
    before = run.evaluation.stat().st_mtime_ns
    report = evaluate(config, workspace, progress=False)
    assert (report.done, report.skipped) == (0, 15)
    assert run.evaluation.stat().st_mtime_ns == before
    assert report.details["all"] == scores(run)["all"]


def test_other_settings_or_another_checkpoint_are_scored_anew(trained):
    config, workspace, run, _ = trained
    on_test = config.model_copy(
        update={"evaluate": config.evaluate.model_copy(update={"split": "test"})}
    )
    assert evaluate(on_test, workspace, progress=False).done == 15
    assert scores(run)["split"] == "test"
    assert evaluate(config, workspace, progress=False).done == 15
    changed = scores(run) | {"checkpoint_sha256": "0" * 64}
    run.evaluation.write_text(json.dumps(changed))
    assert evaluate(config, workspace, progress=False).done == 15


def test_the_batch_size_changes_nothing(trained):
    config, workspace, run, _ = trained
    before = scores(run)
    run.evaluation.unlink()
    one = config.evaluate.model_copy(update={"batch_size": 1})
    evaluate(config.model_copy(update={"evaluate": one}), workspace, progress=False)
    after = scores(run)
    assert after["support"] == before["support"]
    # Rounding may flip single pixels between two equally likely classes.
    for ours, theirs in zip(after["subsets"], before["subsets"], strict=True):
        assert ours["miou"] == pytest.approx(theirs["miou"], abs=1e-3)


def test_nothing_trained_and_no_such_split(fresh, make_config, trained):
    config = make_config(fresh)
    with pytest.raises(CheckpointError, match=r"found none\. Run `any2seg train"):
        evaluate(config, Workspace.of(config), progress=False)
    config, workspace, _, _ = trained
    wrong = config.evaluate.model_copy(update={"split": "trial"})
    with pytest.raises(DatasetError, match="no split 'trial'"):
        evaluate(config.model_copy(update={"evaluate": wrong}), workspace, progress=False)
