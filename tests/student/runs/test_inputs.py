"""A run's inputs: opened once a stage; its identity: what changes it; and that it needs no torch."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from pipeline.config.load import load_config
from pipeline.errors import DatasetError, MissingTarget
from pipeline.workspace import Workspace
from student.evaluation.evaluate import evaluate
from student.runs.inputs import identify, open_inputs, start_run
from student.runs.run import is_finished
from student.training.train import train


def lscd(**terms: float) -> dict:
    return {"student": {"lscd": {"inter": 0, "intra": 0} | terms}}


@pytest.fixture
def run_of(scenes, make_config):
    def of(**tables):
        config = make_config(scenes, **tables)
        return identify(config, Workspace.of(config))

    return of


def test_what_weights_depend_on_makes_another_run(run_of):
    base = run_of()
    assert base.id.startswith("tiny-")
    train = {"steps": 6, "batch_size": 3, "warmup_steps": 2, "threads": 1, "device": "cpu"}
    others = [
        run_of(seed=1),
        run_of(train=train | {"lr": 0.5}),
        run_of(student={"fusion": "mean"}),
        run_of(name="other"),
    ]
    assert len({run.id for run in [base, *others]}) == 5
    same = [run_of(train=train | {"workers": 2, "threads": 2, "checkpoint_every": 5})]
    same.append(run_of(evaluate={"split": "test"}))
    assert {run.id for run in same} == {base.id}


def test_teacher_outputs_count_only_where_a_loss_reads_them(run_of):
    none, pictures, text = run_of(**lscd()), run_of(**lscd(inter=1)), run_of(**lscd(intra=1))
    assert none.identity["towers"] == {}
    assert none.identity["prompts"] == text.identity["towers"].get("prompts", "")
    assert set(pictures.identity["towers"]) == {"rgb", "depth", "event", "lidar"}
    assert text.identity["towers"] == {}
    assert len(text.identity["prompts"]) == 64


def test_what_is_missing_is_named_with_the_command(make_config, tmp_path, fresh):
    nowhere = make_config(tmp_path / "empty")
    with pytest.raises(DatasetError, match="any2seg prepare"):
        identify(nowhere, Workspace.of(nowhere))
    other = make_config(fresh, teacher={"name": "other", "outputs": ["embedding", "patch"]})
    with pytest.raises(MissingTarget, match="any2seg precompute"):
        identify(other, Workspace.of(other))


def test_opening_writes_a_config_that_asks_for_the_same_run(make_config, fresh):
    config = make_config(fresh)
    workspace = Workspace.of(config)
    inputs = open_inputs(config, workspace)
    start_run(inputs)
    run = inputs.run
    again = load_config(run.folder / "config.toml")
    assert identify(again, workspace) == run
    assert json.loads((run.folder / "run.json").read_text())["identity"] == run.identity
    assert not is_finished(run)


def test_asking_needs_no_torch():
    code = (
        "import sys, student.runs.inputs, student.training.train, student.evaluation.evaluate\n"
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_file_of_backbone_weights_counts_by_its_content(run_of, tmp_path):
    one, copy, other = (tmp_path / name for name in ("one", "copy", "other"))
    one.write_bytes(b"weights")
    copy.write_bytes(b"weights")
    other.write_bytes(b"weightz")
    runs = [run_of(student={"weights": str(path)}).id for path in (one, copy, other)]
    assert runs[0] == runs[1] != runs[2]


@contextmanager
def opens_counted() -> Iterator[Counter[str]]:
    """Counts calls of the functions that open a run's inputs, whoever imported them how."""
    openers = {
        "open_inputs",
        "identify",
        "Manifest.load",
        "look_up",
        "TargetStore.open",
        "PromptStore.open",
        "load_config",
    }
    counts: Counter[str] = Counter()

    def watch(frame, event, _):
        name = frame.f_code.co_qualname
        if event == "call" and name in openers:
            counts[name] += 1

    sys.setprofile(watch)
    try:
        yield counts
    finally:
        sys.setprofile(None)


OPENED_ONCE = {
    "open_inputs": 1,
    "Manifest.load": 1,
    "look_up": 5,  # four modalities and the class prompts
    "TargetStore.open": 4,
    "PromptStore.open": 1,
}


@pytest.mark.parametrize("policy", ["error", "mask"])
def test_every_stage_opens_its_inputs_exactly_once(make_config, fresh, policy):
    base = make_config(fresh)
    watched = {"missing_targets": policy, "validate_every": 3, "tracker": "none"}
    config = base.model_copy(update={"train": base.train.model_copy(update=watched)})
    workspace = Workspace.of(config)
    for stage in (train, evaluate):
        for number in ("done", "skipped"):
            with opens_counted() as counts:
                report = stage(config, workspace, progress=False)
            assert getattr(report, number) > 0
            assert counts == OPENED_ONCE, (stage, number)
