"""Training end to end: skip, resume and kill are exact; no teacher code is needed."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time

import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import load_file

from pipeline.config.load import dump_config
from pipeline.errors import WorkspaceBusy
from pipeline.storage.lease import locked
from pipeline.workspace import Workspace
from student.evaluation.evaluate import evaluate
from student.losses.objective import TERMS
from student.runs.inputs import identify
from student.runs.run import is_finished, steps_done
from student.training.metrics_log import COLUMNS
from student.training.train import train

CHILD = """
import sys
{block}
from pipeline.config.load import load_config
from pipeline.workspace import Workspace
from student.evaluation.evaluate import evaluate
from student.training.train import train
config = load_config(sys.argv[1])
workspace = Workspace.of(config)
print(train(config, workspace, progress=False).done, flush=True)
evaluate(config, workspace, progress=False)
assert not [name for name in sys.modules if name.split(".")[0] == "teacher"]
"""
NO_TRANSFORMERS = "sys.modules['transformers'] = None"
NO_TORCH = "sys.modules['torch'] = None"


def start(config, folder, block):
    """Train and evaluate in a process of its own."""
    path = folder / "config.toml"
    path.write_text(dump_config(config))
    code = CHILD.format(block=block)
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
    return subprocess.Popen(
        [sys.executable, "-c", code, str(path)], env=environment, stdout=subprocess.PIPE, text=True
    )


def finish(child):
    out, _ = child.communicate(timeout=500)
    assert child.returncode == 0
    return int(out)


def losses(run):
    table = pq.read_table(run.metrics)
    kept = [name for name in table.column_names if not name.endswith("_s")]
    return table.select(kept).to_pylist()


def weights(run):
    return load_file(run.checkpoint)


def assert_same_run(one, other):
    assert losses(one) == losses(other)
    ours, theirs = weights(one), weights(other)
    assert set(ours) == set(theirs)
    for key, value in ours.items():
        assert torch.equal(value, theirs[key]), key


@pytest.fixture(scope="module")
def uninterrupted(scenes, make_config, tmp_path_factory):
    """The run of twelve steps that resumed runs are compared with."""
    import shutil

    folder = tmp_path_factory.mktemp("uninterrupted")
    shutil.copytree(scenes, folder, dirs_exist_ok=True)
    config = long_config(make_config, folder)
    workspace = Workspace.of(config)
    assert train(config, workspace, progress=False).done == 12
    return identify(config, workspace)


def long_config(make_config, folder, **fields):
    train = {
        "steps": 12,
        "batch_size": 4,
        "accumulate": 2,
        "clip_norm": 1.0,
        "ema": 0.9,
        "subset_draw": "weak_first",
        "consistency_weight": 0.5,
        "jitter": 0.3,
        "warmup_steps": 2,
        "checkpoint_every": 2,
        "threads": 1,
        "device": "cpu",
    }
    return make_config(folder, train=train | fields)


def test_metrics_have_a_row_a_step_and_a_column_a_term(uninterrupted):
    table = pq.read_table(uninterrupted.metrics)
    assert table.column_names == ["step", *COLUMNS]
    assert table["step"].to_pylist() == list(range(1, 13))
    assert all(value > 0 for name in ("ce", "subset_ce") for value in table[name].to_pylist())
    inter = table["inter"].to_pylist()  # 0 in a batch whose samples are all mirrored
    assert min(inter) >= 0
    assert sum(value > 0 for value in inter) >= 8


@pytest.mark.proof
def test_killed_twice_it_ends_with_the_same_bits_without_transformers(
    uninterrupted, make_config, fresh
):
    config = long_config(make_config, fresh)
    run = identify(config, Workspace.of(config))
    for steps in (2, 6):
        child = start(config, fresh, NO_TRANSFORMERS)
        while steps_done(run) < steps and child.poll() is None:
            time.sleep(0.01)
        assert child.poll() is None, "the run ended before it could be killed"
        os.kill(child.pid, signal.SIGKILL)
        child.communicate()
        assert not is_finished(run)
    first = steps_done(run)
    assert finish(start(config, fresh, NO_TRANSFORMERS)) == 12 - first
    assert first >= 6
    assert_same_run(run, uninterrupted)
    assert run.evaluation.exists()


def test_loader_processes_change_nothing(uninterrupted, make_config, fresh):
    config = long_config(make_config, fresh, workers=2, checkpoint_every=5)
    assert train(config, Workspace.of(config), progress=False).done == 12
    assert_same_run(identify(config, Workspace.of(config)), uninterrupted)


def test_a_finished_run_is_skipped_at_once_without_torch(uninterrupted, make_config):
    folder = uninterrupted.folder.parents[1]
    config = long_config(make_config, folder)
    evaluate(config, Workspace.of(config), progress=False)
    assert finish(start(config, folder, NO_TORCH)) == 0
    report = train(config, Workspace.of(config), progress=False)
    assert (report.done, report.skipped) == (0, 12)
    assert report.seconds < 1


def test_a_state_file_that_lags_behind_is_caught_up(make_config, fresh):
    config = make_config(fresh)
    workspace = Workspace.of(config)
    train(config, workspace, progress=False)
    run = identify(config, workspace)
    before = run.checkpoint_state.read_text()
    run.checkpoint_state.unlink()
    report = train(config, workspace, progress=False)
    assert (report.done, report.skipped) == (0, 6)
    assert is_finished(run)
    assert run.checkpoint_state.read_text() == before


def test_two_at_once_are_refused(make_config, fresh):
    config = make_config(fresh)
    workspace = Workspace.of(config)
    run = identify(config, workspace)
    with locked(run.folder / ".lock", wait=False), pytest.raises(WorkspaceBusy):
        train(config, workspace, progress=False)


def test_without_lscd_no_target_is_read(make_config, fresh):
    workspace = Workspace.of(make_config(fresh))
    shutil.rmtree(workspace.root / "targets")
    shutil.rmtree(workspace.prompts)
    student = {
        "backbone": "test_efficientnet",
        "weights": "none",
        "fusion": "mean",
        "lscd": {"inter": 0, "intra": 0},
    }
    config = make_config(fresh, student=student)
    report = train(config, workspace, progress=False)
    assert report.done == 6
    row = losses(identify(config, workspace))[-1]
    assert [name for name in TERMS if row[name] is None] == [
        "consistency",
        "inter",
        "intra",
        "dense",
    ]


def test_classes_without_language_need_no_prompts(make_config, fresh):
    workspace = Workspace.of(make_config(fresh))
    shutil.rmtree(workspace.prompts)
    lscd = {"inter": 0, "intra": 0.1, "prompts": "one_hot"}
    student = {"backbone": "test_efficientnet", "weights": "none", "lscd": lscd}
    config = make_config(fresh, student=student)
    assert train(config, workspace, progress=False).done == 6
    assert losses(identify(config, workspace))[-1]["intra"] > 0
