"""Training in two real processes: the order of samples, going on from one to two and back, errors."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
import torch

from pipeline.config.load import dump_config
from pipeline.core.retryable import TryAgain
from pipeline.errors import (
    Any2SegError,
    DigestMismatch,
    SampleRefused,
    StorageUnavailable,
    WorkerLost,
    WorkspaceBusy,
)
from pipeline.storage.lease import locked
from pipeline.workspace import Workspace
from student.runs import launch as launcher
from student.runs.checkpoint import load_checkpoint
from student.runs.inputs import identify, open_inputs
from student.runs.run import is_finished
from student.training.train import train
from student.training.trainer import Trainer

ROOT = str(Path(__file__).parents[3])
GO = """
import json, sys
from pathlib import Path
from pipeline.config.load import load_config
from pipeline.workspace import Workspace
from student.runs.distributed import join_world
from student.runs.inputs import open_inputs
from student.training.trainer import Trainer

config = load_config(Path(sys.argv[1]))
workspace = Workspace.of(config)
with join_world("cpu") as world:
    trainer = Trainer(open_inputs(config, workspace), world=world)
    first, keys = trainer.resume(), []
    for micro_batches in trainer.batches(first):
        keys.append([ref.key for batch in micro_batches for ref in batch.refs])
        trainer.step(micro_batches, 0.0)
        if trainer.steps_done == int(sys.argv[2]):
            break
    trainer.save()
    Path(f"{sys.argv[3]}{world.rank}").write_text(json.dumps(
        {"keys": keys, "running": trainer.objective.running.union_MK.tolist(),
         "bias": trainer.ema.module.head.classify.bias.tolist()}))
    world.barrier()
"""
TRAIN = {
    "steps": 6,
    "batch_size": 4,
    "accumulate": 2,
    "ema": 0.9,
    "clip_norm": 5.0,
    "consistency_weight": 0.5,
    "subset_draw": "weak_first",
    "checkpoint_every": 2,
    "threads": 1,
    "device": "cpu",
    "tracker": "none",
}


def two_processes(config, folder: Path, steps: int) -> list[dict]:
    """Go on to `steps` in two processes; what each of them says."""
    (folder / "config.toml").write_text(dump_config(config))
    (folder / "go.py").write_text(GO)
    arguments = [str(folder / "go.py"), str(folder / "config.toml"), str(steps), str(folder / "r")]
    done = subprocess.run(
        [sys.executable, "-m", *launcher.TORCHRUN, "--nproc-per-node=2", *arguments],
        env={**os.environ, "PYTHONPATH": ROOT, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return [json.loads((folder / f"r{rank}").read_text()) for rank in range(2)]


def one_process(config, steps: int) -> tuple[Trainer, list[list[str]]]:
    workspace = Workspace.of(config)
    trainer = Trainer(open_inputs(config, workspace))
    keys = []
    for micro_batches in trainer.batches(trainer.resume()):
        keys.append([ref.key for batch in micro_batches for ref in batch.refs])
        trainer.step(micro_batches, 0.0)
        if trainer.steps_done == steps:
            break
    return trainer, keys


@pytest.mark.proof
def test_one_process_two_and_one_again_see_the_same_samples_and_stay_close(
    fresh, make_config, tmp_path
):
    config = make_config(fresh, train=TRAIN)
    run = identify(config, Workspace.of(config))
    whole, keys = one_process(config, 6)
    one_process(config, 2)[0].save()
    told = two_processes(config, tmp_path, 4)
    assert [one + two for one, two in zip(*(t["keys"] for t in told), strict=True)] == keys[2:4]
    assert told[0]["running"] == told[1]["running"]
    assert told[0]["bias"] == told[1]["bias"]
    assert load_checkpoint(run).step == 4
    last, rest = one_process(config, 6)
    assert rest == keys[4:]
    wanted = [row["loss"] for row in whole.rows]
    found = [row["loss"] for row in last.rows]
    assert found[:2] == wanted[:2]
    # A part of one sample has other batch statistics than one of two, and class weights of its own.
    assert found == pytest.approx(wanted, rel=0.1)
    torch.testing.assert_close(
        last.model.head.classify.weight, whole.model.head.classify.weight, atol=2e-3, rtol=0
    )


@pytest.mark.slow
def test_the_stage_starts_its_processes_and_tells_what_they_tell(fresh, make_config):
    config = make_config(fresh, train=TRAIN | {"processes": 2, "steps": 2})
    workspace = Workspace.of(config)
    run = identify(config, workspace)
    alone = config.model_copy(update={"train": config.train.model_copy(update={"processes": 1})})
    assert identify(alone, workspace).id == run.id
    with locked(run.folder / ".lock", wait=False), pytest.raises(WorkspaceBusy):
        train(config, workspace, progress=False)
    report = train(config, workspace, progress=False)
    assert (report.done, report.skipped, report.details["run_id"]) == (2, 0, run.id)
    assert report.details["steps_per_s"] > 0
    assert is_finished(run)


def test_processes_that_exit_without_a_report_are_an_error(
    fresh, make_config, tmp_path, monkeypatch
):
    config = make_config(fresh, train=TRAIN | {"processes": 2})
    (tmp_path / "exits.py").write_text("raise SystemExit(7)")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), ROOT]))
    monkeypatch.setattr(launcher, "TORCHRUN", ("exits",))
    with pytest.raises(Any2SegError, match=r"exited with code 7.*again"):
        train(config, Workspace.of(config), progress=False)


STAGES = """
import os, time
from pathlib import Path
from pipeline.errors import SampleRefused

FOLDER = Path(__file__).parent

def hang(config, workspace, *, progress):
    (FOLDER / f"pid{os.environ['RANK']}").write_text(str(os.getpid()))
    time.sleep(600)

def refuse(config, workspace, *, progress):
    if os.environ["RANK"] == "0":
        hang(config, workspace, progress=progress)
    while not (FOLDER / "pid0").exists():
        time.sleep(0.05)
    raise SampleRefused("a/1", "no bands")
"""
PARENT = """
import sys
from pathlib import Path
from pipeline.config.load import load_config
from student.runs.launch import launch
from stages_of_test import hang
launch(hang, load_config(Path(sys.argv[1])), progress=False)
"""


@pytest.fixture
def two(make_config, tmp_path, monkeypatch):
    """A config with two processes, and importable stages."""
    config = make_config(tmp_path / "empty", train=TRAIN | {"processes": 2})
    (tmp_path / "stages_of_test.py").write_text(STAGES)
    (tmp_path / "config.toml").write_text(dump_config(config))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), ROOT]))
    monkeypatch.syspath_prepend(tmp_path)
    return config


@pytest.mark.slow
def test_an_error_of_one_process_ends_the_others_and_is_raised(two, tmp_path):
    from stages_of_test import refuse

    with pytest.raises(SampleRefused, match="sample a/1: no bands"):
        launcher.launch(refuse, two, progress=False)
    assert not psutil.pid_exists(int((tmp_path / "pid0").read_text()))


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_all_processes_end_with_the_command(two, tmp_path, number):
    command = [sys.executable, "-c", PARENT, str(tmp_path / "config.toml")]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as parent:
        deadline = time.monotonic() + 300
        while not all((tmp_path / f"pid{rank}").exists() for rank in range(2)):
            assert parent.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.05)
        torchrun, *workers = psutil.Process(parent.pid).children(recursive=True)
        assert len(workers) == 2
        parent.send_signal(number)
        _, alive = psutil.wait_procs(workers, timeout=2)
        # One that ended but was not reaped yet, by torchrun or by init, is a zombie.
        assert [p for p in alive if p.status() != psutil.STATUS_ZOMBIE] == []
        torchrun.wait(timeout=60)


@pytest.mark.parametrize(
    "error",
    [
        WorkspaceBusy("busy"),
        SampleRefused("a/1", "no bands"),
        DigestMismatch("f", "a" * 64, "b" * 64),
        StorageUnavailable("no answer"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_errors_keep_class_and_text(error):
    value = json.loads(json.dumps(launcher.error_as_json(error)))
    copy = launcher.error_from_json(value)
    assert (type(copy), str(copy), copy.args) == (type(error), str(error), error.args)


def test_an_error_of_another_room_keeps_its_text_and_base():
    error = launcher.error_from_json(launcher.error_as_json(TryAgain("killed")))
    assert (type(error), str(error)) == (WorkerLost, "killed")
