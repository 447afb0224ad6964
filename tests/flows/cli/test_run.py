"""What `run` and `plan` print before they start."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from flows.cli import run as run_command
from flows.cli.main import app
from pipeline.errors import CheckpointError
from tests.teacher.families.tiny_checkpoints import write_clip

SEEN = "rendered street scenes"


@pytest.fixture
def flows_run(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the flows that were called; none of them does anything."""
    names: list[str] = []
    monkeypatch.setattr(run_command, "_run_flow", lambda name, *_: names.append(name))
    monkeypatch.setattr(run_command, "_print_report_path", lambda _: None)
    # LanguageBind's weights would be fetched.
    monkeypatch.setattr("teacher.encoding.units.plan_towers", lambda *_: [])
    return names


def output(*words: str) -> str:
    result = CliRunner().invoke(app, [*words])
    assert result.exit_code == 0, (result.output, result.exception)
    return result.output


def test_run_says_once_at_its_start_that_the_toy_would_teach(
    field: Path, flows_run: list[str]
) -> None:
    lines = output("run", str(field)).splitlines()
    assert flows_run == ["any2seg"]
    assert [SEEN in line for line in lines] == [True] + [False] * (len(lines) - 1)
    other = output("run", str(field), "--set", "teacher.name=LanguageBind")
    assert SEEN not in other


def test_plan_says_it_in_one_line(field: Path) -> None:
    lines = output("plan", str(field), "--no-probe").splitlines()
    assert [SEEN in line for line in lines] == [True] + [False] * (len(lines) - 1)


@pytest.mark.parametrize("command", ["run", "refresh-teacher"])
@pytest.mark.parametrize("broken", ["cut", "absent"])
def test_weights_that_are_not_to_be_had_are_refused_before_data_is_prepared(
    field: Path, tmp_path: Path, command: str, broken: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run_command, "_run_flow", lambda *_: pytest.fail("the flow was started"))
    write_clip(tmp_path / "clip")
    weights = tmp_path / "clip" / "model.safetensors"
    if broken == "cut":
        weights.write_bytes(weights.read_bytes()[:20_000])
    else:
        weights.unlink()
    arguments = [command, str(field), "--set", f"teacher.name={tmp_path / 'clip'}"]
    result = CliRunner().invoke(app, arguments)
    assert isinstance(result.exception, CheckpointError)
    assert "expected 94812 bytes, found 20000" in str(result.exception) or broken == "absent"
    assert not list(field.parent.rglob("*.tar"))
