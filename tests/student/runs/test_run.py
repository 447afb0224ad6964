"""A run's identity: what changes it, what does not, and that asking needs no torch."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from pipeline.config.load import load_config
from pipeline.errors import DatasetError, MissingTarget
from pipeline.workspace import Workspace
from student.runs.run import identify, is_finished, open_run, reads_prompts, reads_targets


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


@pytest.mark.parametrize(
    ("terms", "outputs", "prompts"),
    [
        ({}, (), False),
        ({"inter": 1}, ("embedding",), False),
        ({"intra": 1}, (), True),
        ({"intra": 1, "prompts": "one_hot"}, (), False),
        ({"dense": 1}, ("patch",), False),
        ({"dense": 1, "dense_distance": "kl"}, ("patch",), True),
        ({"inter": 1, "dense": 1}, ("embedding", "patch"), False),
    ],
)
def test_what_each_term_reads(make_config, tmp_path, terms, outputs, prompts):
    config = make_config(tmp_path, **lscd(**terms))
    assert reads_targets(config) == outputs
    assert reads_prompts(config) == prompts


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
    run = open_run(config, workspace)
    again = load_config(run.folder / "config.toml")
    assert identify(again, workspace) == run
    assert json.loads((run.folder / "run.json").read_text())["identity"] == run.identity
    assert not is_finished(run)


def test_asking_needs_no_torch():
    code = (
        "import sys, student.runs.run, student.training.train, student.evaluation.evaluate\n"
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
