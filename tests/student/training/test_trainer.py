"""The parts of the loop: micro-batches, precision, missing targets, views, exact resume in one
process."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch

from pipeline.errors import Any2SegError, CheckpointError, ConfigError, MissingTarget
from pipeline.shards.manifest import Manifest
from pipeline.targets.lookup import resolve
from pipeline.workspace import Workspace
from student.evaluation.count import load_student
from student.evaluation.evaluate import evaluate
from student.inference.segmenter import Segmenter
from student.runs.checkpoint import load_checkpoint
from student.runs.inputs import identify, open_inputs
from student.runs.layout import BEST
from student.training.metrics_log import read_rows
from student.training.train import train
from student.training.trainer import Trainer


@pytest.fixture
def make_trainer(scenes, make_config):
    def make(**tables):
        config = make_config(scenes, **tables)
        return Trainer(open_inputs(config, Workspace.of(config)))

    return make


def test_the_loss_is_the_weighted_sum_of_its_terms(make_trainer):
    trainer = make_trainer()
    trainer.step(next(trainer.batches(0)), 0.0)
    row = trainer.rows[0]
    lscd = trainer.config.student.lscd
    terms = ("inter", "intra", "dense")
    expected = row["ce"] + row["subset_ce"] + 0.5 * row["auxiliary"]
    expected += sum(getattr(lscd, n) * row[n] for n in terms)
    assert row["loss"] == pytest.approx(expected, rel=1e-6)


def test_micro_batches_are_the_batch_and_its_metrics_their_mean(make_trainer):
    train_table = {"steps": 6, "batch_size": 4, "threads": 1, "device": "cpu"}
    train_table |= {"subset_draw": "uniform"}  # weak first, what is drawn changes with every call
    whole = make_trainer(train=train_table)
    cut = make_trainer(train=train_table | {"accumulate": 2})
    for (batch,), micro_batches in zip(whole.batches(2), cut.batches(2), strict=True):
        assert [len(micro.refs) for micro in micro_batches] == [2, 2]
        keys = [ref.key for micro in micro_batches for ref in micro.refs]
        assert keys == [ref.key for ref in batch.refs]
        drawn = [cut.objective.draw_subset(micro) for micro in micro_batches]
        assert torch.equal(torch.cat(drawn), whole.objective.draw_subset(batch))
    losses = [cut.objective(micro)[0].item() for micro in micro_batches]
    cut.step(micro_batches, 0.0)
    assert cut.rows[0]["loss"] == pytest.approx(np.mean(losses), rel=1e-5)


def test_a_batch_that_does_not_divide_is_refused(make_trainer):
    with pytest.raises(ConfigError, match="multiple of 2"):
        make_trainer(train={"batch_size": 3, "accumulate": 2})


def test_sixteen_bits_are_close_to_float32(make_trainer):
    settings = {"batch_size": 4, "threads": 1, "device": "cpu", "subset_draw": "weak_first"}
    lscd = {"inter": 0.05, "intra": 0.1, "dense": 0.05}
    student = {"backbone": "test_efficientnet", "weights": "none", "head_channels": 8}
    rows = {}
    for precision in ("float32", "bfloat16"):
        trainer = make_trainer(
            train=settings | {"precision": precision}, student=student | {"lscd": lscd}
        )
        trainer.step(next(trainer.batches(0)), 0.0)
        rows[precision] = trainer.rows[0]
        assert {p.dtype for p in trainer.model.parameters()} == {torch.float32}
    assert rows["bfloat16"]["loss"] != rows["float32"]["loss"]
    assert rows["bfloat16"]["loss"] == pytest.approx(rows["float32"]["loss"], rel=0.05)


def test_a_loss_that_is_not_finite_stops_the_run_and_says_what_to_do(make_trainer):
    trainer = make_trainer()
    with torch.no_grad():
        trainer.model.head.classify.bias.fill_(torch.nan)
    micro_batches = next(trainer.batches(0))
    with pytest.raises(Any2SegError, match=r"step 1 is nan.*lower train\.lr"):
        trainer.step(micro_batches, 0.0)


@pytest.mark.parametrize(("policy", "used"), [("skip", 8), ("mask", 12)])
def test_a_run_with_missing_targets_reports_its_samples(fresh, make_config, policy, used, capsys):
    whole = make_config(fresh)
    workspace = Workspace.of(whole)
    store = resolve(whole, workspace, "depth")
    (store.path / "ledger/train/train-000002.json").unlink()
    with pytest.raises(MissingTarget, match="1 of 3 shards have no depth"):
        train(whole, workspace, progress=False)
    settings = whole.train.model_copy(update={"missing_targets": policy, "steps": 2})
    config = whole.model_copy(update={"train": settings})
    report = train(config, workspace)
    run = identify(config, workspace)
    noted = json.loads((run.folder / "run.json").read_text())["missing_targets"]
    assert noted == {
        "policy": policy,
        "joined": used,
        "skipped": 12 - used,
        "masked": 4 if policy == "mask" else 0,
        "holes": {"depth": 4},
    }
    assert "4 of 12 samples" in report.details["missing_targets"]
    assert report.details["missing_targets"] in capsys.readouterr().err
    # Once the targets exist, the samples are others: that is another run.
    rows = np.ones((4, 16)) / 4
    store.commit(
        Manifest.load(workspace.dataset(config)).shards("train")[2],
        {"embedding": rows, "patch": np.stack([rows] * 4, axis=1)},
        {},
    )
    assert identify(config, workspace).id != run.id


def test_a_student_trains_on_views_with_every_term(tmp_path, make_config, make_workspace):
    teacher = {"outputs": ["embedding", "patch"], "views": 2}
    plain = make_config(tmp_path / "w", teacher=teacher)
    config = plain.model_copy(
        update={"train": plain.train.model_copy(update={"crop_px": 32, "steps": 2})}
    )
    workspace = make_workspace(config)
    inputs = open_inputs(config, workspace)
    assert inputs.run.identity["views"]["number"] == 2
    trainer = Trainer(inputs)
    (batch,) = next(trainer.batches(0))
    assert batch.label.shape[1:] == (32, 32)
    terms = trainer.objective.terms(batch)
    assert all(terms[name] > 0 for name in ("inter", "intra", "dense"))
    no_target = replace(batch, has_target=torch.zeros_like(batch.has_target))
    masked = trainer.objective.terms(no_target)
    assert not any(masked[name].any() for name in ("inter", "dense"))
    assert torch.equal(masked["ce"], terms["ce"])


def test_the_robust_recipe_resumes_with_the_same_bits(fresh, make_config):
    lscd = {"inter": 0.05, "intra": 0.1, "dense": 0.05, "weak_power": 1.0}
    config = make_config(
        fresh,
        student={
            "backbone": "test_efficientnet",
            "weights": "none",
            "head_channels": 8,
            "fusion": "cmnext",
            "stems": "per_modality",
            "lscd": lscd,
        },
        train={
            "steps": 4,
            "batch_size": 4,
            "accumulate": 2,
            "clip_norm": 1.0,
            "decay": "cosine",
            "ema": 0.9,
            "subset_draw": "weak_first",
            "consistency_weight": 0.5,
            "ohem_threshold": 0.7,
            "threads": 1,
            "device": "cpu",
        },
    )
    inputs = open_inputs(config, Workspace.of(config))

    def go(steps):
        trainer = Trainer(inputs)
        first = trainer.resume()
        for micro_batches in trainer.batches(first):
            trainer.step(micro_batches, 0.0)
            if trainer.steps_done == steps:
                break
        return trainer

    whole = go(4)
    assert whole.objective.running.union_MK.sum() > 0
    go(2).save()
    resumed = go(4)
    kept = [{k: v for k, v in row.items() if not k.endswith("_s")} for row in whole.rows]
    found = [{k: v for k, v in row.items() if not k.endswith("_s")} for row in resumed.rows]
    assert [{k: row[k] for k in want} for row, want in zip(found, kept, strict=True)] == kept
    for one, other in (
        (whole.model, resumed.model),
        (whole.lscd, resumed.lscd),
        (whole.ema.module, resumed.ema.module),
        (whole.objective.running, resumed.objective.running),
    ):
        for key, value in one.state_dict().items():
            assert torch.equal(value, other.state_dict()[key]), key


def test_scores_and_predictions_are_of_the_averaged_weights(fresh, make_config):
    train_on = {"steps": 3, "batch_size": 3, "ema": 0.9, "threads": 1, "device": "cpu"}
    config = make_config(fresh, train=train_on)
    workspace = Workspace.of(config)
    train(config, workspace, progress=False)
    run = identify(config, workspace)
    checkpoint = load_checkpoint(run)
    manifest = Manifest.load(workspace.dataset(config))
    models = [load_student(config, manifest, run)[0], Segmenter.from_run(run.folder).model]
    for model in models:
        for name, value in model.state_dict().items():
            assert torch.equal(value.cpu(), checkpoint.part("ema.weights")[name]), name
    bias = "head.classify.bias"
    assert not torch.equal(models[0].state_dict()[bias], checkpoint.part("model")[bias])


def test_dropout_of_a_step_depends_on_nothing_before_it(make_trainer):
    trainer = make_trainer(train={"batch_size": 3, "threads": 1, "device": "cpu"})
    micro_batches = next(trainer.batches(0))
    drawn = []
    for _ in range(2):
        trainer.steps_done = 0
        torch.rand(7)
        trainer.step(micro_batches, 0.0)
        drawn.append(torch.rand(3))
    assert torch.equal(*drawn)
    trainer.step(micro_batches, 0.0)
    assert not torch.equal(torch.rand(3), drawn[0])


def test_validation_changes_no_weight_and_keeps_the_best_and_copies(fresh, make_config):
    settings = {"steps": 5, "batch_size": 3, "threads": 1, "device": "cpu", "checkpoint_every": 5}
    shown = {"validate_every": 2, "keep_every": 3, "tracker": "none"}
    weights = {}
    for name, extra in (("plain", {}), ("shown", shown)):
        config = make_config(fresh, train=settings | extra)
        workspace = Workspace.of(config)
        run = identify(config, workspace)
        train(config, workspace, progress=False)
        weights[name] = load_checkpoint(run).tensors
        if name == "plain":
            shutil.rmtree(run.folder)
    for key, value in weights["plain"].items():
        assert torch.equal(value, weights["shown"][key]), key
    rows = read_rows(run)
    means = {row["step"]: row["val_mean"] for row in rows if "val_mean" in row}
    assert list(means) == [2, 4, 5]
    best = json.loads(run.state_of(BEST).read_text())
    assert best["val_mean"] == max(means.values()) == means[best["step"]]
    assert load_checkpoint(run, "step-000003").step == 3
    # The last step's scores are those of the evaluation stage.
    evaluate(config, workspace, progress=False)
    scores = json.loads(run.evaluation.read_text())
    last = [rows[-1][name] for name in ("val_all", "val_mean", "val_worst")]
    assert last == [scores["all"], scores["mean"], scores["worst"]["miou"]]
    found = Segmenter.from_run(run.folder, checkpoint=BEST)
    assert found.description.step == best["step"]
    with pytest.raises(CheckpointError, match=r"step-000004.*no checkpoint"):
        Segmenter.from_run(run.folder, checkpoint="step-000004")


def test_a_best_that_was_found_counts_after_a_resume(fresh, make_config):
    config = make_config(fresh, train={"steps": 4, "batch_size": 3, "validate_every": 2})
    inputs = open_inputs(config, Workspace.of(config))
    first = Trainer(inputs)
    assert first.validation.improves({"val_mean": 0.5})
    first._write(BEST, val_mean=0.5)
    again = Trainer(inputs).validation
    assert not again.improves({"val_mean": 0.5})
    assert again.improves({"val_mean": 0.6})
