"""Evaluation end to end on a tiny run: contents, skip, what makes it run again."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass

import numpy as np
import pytest
from PIL import Image

from pipeline.errors import CheckpointError, DatasetError
from pipeline.schemas import EVALUATION_SCHEMA
from pipeline.shards.manifest import Manifest
from pipeline.shards.sample_reader import list_samples
from pipeline.workspace import Workspace
from student.evaluation.count import count_subsets, load_student, score
from student.evaluation.evaluate import evaluate
from student.runs.distributed import World
from student.runs.inputs import identify, open_inputs
from student.training.train import train


@pytest.fixture(scope="module")
def trained(scenes, make_config, tmp_path_factory):
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
    conditions = {row["condition"] for row in rows} - {""}
    corner_cases = {row["corner_case"] for row in rows} - {""}
    assert conditions
    assert corner_cases
    assert report.done == len(found["subsets"]) == 15
    assert found["step"] == 6
    assert found["num_samples"] == 6
    assert sum(found["support"]) <= 6 * 64 * 64
    for row in found["subsets"]:
        assert 0 <= row["miou"] <= 1
        assert row["num_samples"] == 6
        present = [k for k, pixels in enumerate(found["support"]) if pixels]
        assert [k for k, iou in enumerate(row["per_class"]) if iou is not None] == present
        assert set(row["per_condition"]) == set(found["conditions"]) == conditions
        assert set(row["per_corner_case"]) == set(found["corner_cases"]) == corner_cases
        assert row["support"] == found["support"]
    assert found["all"] == found["subsets"][-1]["miou"]
    assert found["worst"]["miou"] == min(row["miou"] for row in found["subsets"])


def test_kept_images_are_class_ids_of_the_named_samples(trained):
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


def test_another_config_or_checkpoint_is_scored_again(trained):
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


def test_out_of_memory_halves_the_batch(trained, monkeypatch):
    config, workspace, run, _ = trained
    run.evaluation.unlink()
    sizes = []

    def fits_two(inputs, **options):
        sizes.append(inputs.config.evaluate.batch_size)
        if inputs.config.evaluate.batch_size > 2:
            raise RuntimeError("CUDA out of memory. Tried to allocate 20 MiB")
        return score(inputs, **options)

    monkeypatch.setattr("student.evaluation.count.score", fits_two)
    four = config.evaluate.model_copy(update={"batch_size": 4})
    report = evaluate(config.model_copy(update={"evaluate": four}), workspace, progress=False)
    assert (report.done, sizes) == (15, [4, 2])


def asking(config, **fields):
    """The config with other settings of the evaluation."""
    changed = config.evaluate.model_copy(update=fields)
    return config.model_copy(update={"evaluate": changed})


def test_scores_with_robustness_also_serve_a_config_without_it(trained):
    config, workspace, run, _ = trained
    evaluate(config, workspace, progress=False)
    before = scores(run)
    assert before["robustness"] is None
    robust = asking(config, robustness=True)
    assert evaluate(robust, workspace, progress=False).done == 15
    after = scores(run)
    assert after["subsets"] == before["subsets"]
    skipped, filled, *lossy = after["robustness"]["missing"]
    assert skipped["average"] == pytest.approx(before["mean"])
    assert skipped["protocol"] == before["protocol"] != filled["protocol"]
    assert [table["lost"] for table in lossy] == [0.25, 0.5, 0.75]
    # Nothing is missing from all four: no benchmark may differ there.
    for table in after["robustness"]["missing"]:
        assert table["subsets"][-1]["miou"] == pytest.approx(before["all"], abs=1e-3)
    assert evaluate(config, workspace, progress=False).skipped == 15
    assert evaluate(asking(robust, seed=1), workspace, progress=False).done == 15
    assert scores(run)["robustness"]["noise"] != after["robustness"]["noise"]


def test_scores_of_an_older_schema_are_computed_again(trained):
    config, workspace, run, _ = trained
    evaluate(config, workspace, progress=False)
    run.evaluation.write_text(json.dumps(scores(run) | {"schema": EVALUATION_SCHEMA - 1}))
    assert evaluate(config, workspace, progress=False).done == 15


def test_window_px_scores_with_sliding_windows(trained):
    config, workspace, run, _ = trained
    evaluate(config, workspace, progress=False)
    whole = scores(run)
    assert evaluate(asking(config, window_overlap=0.5), workspace, progress=False).skipped == 15
    assert evaluate(asking(config, window_px=32), workspace, progress=False).done == 15
    assert scores(run)["support"] == whole["support"]
    assert scores(run)["subsets"] != whole["subsets"]
    half = asking(config, window_px=32, window_overlap=0.5)
    assert evaluate(half, workspace, progress=False).done == 15


@pytest.mark.parametrize("batch_size", [2, 6])
def test_counts_of_several_processes_add_up_exactly(trained, batch_size):
    """Six samples in three batches and in one, over four processes that take what is theirs."""
    config, workspace, run, _ = trained
    config = asking(config, batch_size=batch_size)
    inputs = open_inputs(config, workspace)
    refs = list_samples(inputs.manifest, "val", tuple(config.modalities))
    model, _ = load_student(config, inputs.manifest, run)

    @dataclass(frozen=True)
    class Alone(World):
        def total(self, count):
            return count

    def counts(world):
        scores = count_subsets(inputs, model, refs, world=world, robustness=True)
        corrupted = scores.corrupted
        return scores.confusion, scores.num_samples, corrupted.missing, corrupted.noisy

    whole = counts(World())
    parts = zip(*(counts(Alone(rank, 4)) for rank in range(4)), strict=True)
    for array, part in zip(whole, parts, strict=True):
        assert array.dtype == np.int64
        np.testing.assert_array_equal(sum(part), array)


@pytest.mark.proof
def test_two_processes_write_what_one_writes(trained):
    config, workspace, run, _ = trained
    config = asking(config, batch_size=2, robustness=True, window_px=48)
    shutil.rmtree(run.pictures)
    evaluate(config, workspace, progress=False)
    wanted = scores(run)
    pictures = {path: path.read_bytes() for path in run.pictures.rglob("*.png")}
    shutil.rmtree(run.pictures)
    run.evaluation.unlink()
    train_two = config.train.model_copy(update={"processes": 2})
    report = evaluate(config.model_copy(update={"train": train_two}), workspace, progress=False)
    assert (report.stage, report.done) == ("evaluate", 15)
    assert report.details["worst"] == wanted["worst"]
    assert scores(run) == wanted
    assert {path: path.read_bytes() for path in run.pictures.rglob("*.png")} == pictures


def test_an_untrained_run_or_unknown_split_is_an_error(fresh, make_config, trained):
    config = make_config(fresh)
    with pytest.raises(CheckpointError, match=r"found none\. Run `any2seg train"):
        evaluate(config, Workspace.of(config), progress=False)
    config, workspace, _, _ = trained
    wrong = config.evaluate.model_copy(update={"split": "trial"})
    with pytest.raises(DatasetError, match="no split 'trial'"):
        evaluate(config.model_copy(update={"evaluate": wrong}), workspace, progress=False)
