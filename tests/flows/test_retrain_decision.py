"""When a scheduled run trains: growth past the share, new settings; and the reasons that it gives."""

import json
from pathlib import Path

import pytest

from flows.retrain_decision import decide
from pipeline.config.load import load_config
from pipeline.schemas import EVALUATION_SCHEMA
from pipeline.shards.prepare import prepare
from pipeline.storage.files import write_json
from pipeline.workspace import Workspace
from student.evaluation.evaluate import scoring_config
from student.runs.inputs import identify, open_inputs, start_run

from .conftest import write_samples

PLAIN = ["student.lscd.inter=0", "student.lscd.intra=0"]
"""No loss reads a target, so no teacher has to run."""


def prepared(field: Path, *overrides: str):
    config = load_config(field, [*PLAIN, *overrides])
    workspace = Workspace.of(config)
    prepare(config, workspace, progress=False)
    return config, workspace


def pretend_trained(field: Path, *overrides: str, scored: bool = True) -> None:
    """What a finished run leaves, without the weights."""
    config, workspace = prepared(field, *overrides)
    inputs = open_inputs(config, workspace)
    start_run(inputs)
    run = inputs.run
    (run.folder / "checkpoints").mkdir()
    (run.folder / "checkpoints/last.safetensors").write_bytes(b"")
    write_json(run.checkpoint_state, {"step": config.train.steps, "sha256": "0"})
    if scored:
        found = {"schema": EVALUATION_SCHEMA, "settings": scoring_config(config)}
        write_json(run.evaluation, found | {"checkpoint_sha256": "0"})


def test_the_first_student_is_due(field: Path) -> None:
    decision = decide(*prepared(field))
    assert decision.run
    assert "no finished student" in str(decision)


def test_an_unchanged_manifest_is_not_due(field: Path) -> None:
    pretend_trained(field)
    decision = decide(*prepared(field))
    assert not decision.run
    assert "manifest unchanged" in str(decision)


@pytest.mark.parametrize(("limit", "due"), [(20, False), (16, True), (0, True)])
def test_growth_is_due_from_the_configured_percentage(field: Path, limit: float, due: bool) -> None:
    pretend_trained(field)
    write_samples(field.parent / "tiles", "train", range(8, 10))
    decision = decide(*prepared(field, f"schedule.retrain_growth_percent={limit}"))
    assert decision.run is due
    assert "grew 16.7 % (12 to 14 samples" in str(decision)
    assert (">=" if due else "<") in str(decision)


def test_growth_accumulates_since_the_last_training(field: Path) -> None:
    pretend_trained(field)
    for number, due in ((8, False), (9, True)):
        write_samples(field.parent / "tiles", "train", range(number, number + 1))
        assert decide(*prepared(field, "schedule.retrain_growth_percent=10")).run is due


def test_a_changed_config_is_due_and_names_the_fields(field: Path) -> None:
    pretend_trained(field)
    decision = decide(*prepared(field, "train.lr=0.5", "student.fusion=mean"))
    assert decision.run
    assert "student.fusion, train.lr" in str(decision)


def test_a_new_code_version_alone_is_not_due(field: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pretend_trained(field)
    monkeypatch.setattr("student.runs.inputs.VERSION", "99.0")
    decision = decide(*prepared(field))
    assert not decision.run
    assert "grew 0.0 %" in str(decision)


def test_a_student_that_is_not_scored_is_due(field: Path) -> None:
    pretend_trained(field, scored=False)
    decision = decide(*prepared(field))
    assert decision.run
    assert "not scored" in str(decision)


def test_an_unfinished_training_is_no_baseline(field: Path) -> None:
    pretend_trained(field)
    config, workspace = prepared(field)
    state = identify(config, workspace).checkpoint_state
    Path(str(state)).write_text(json.dumps({"step": 1}))
    assert decide(config, workspace).run


def test_one_due_row_makes_the_run_due(field: Path) -> None:
    pretend_trained(field)
    rows = 'compare={other=["train.lr=0.5"]}'
    decision = decide(*prepared(field, rows))
    assert decision.run
    assert "field-other" in str(decision)
