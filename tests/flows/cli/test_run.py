"""What `run` and `plan` print before they start."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from flows.cli import run as run_command
from flows.cli.main import app

SEEN = "rendered street scenes"


@pytest.fixture
def flows_run(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the flows that were called; none of them does anything."""
    names: list[str] = []
    monkeypatch.setattr(run_command, "_run_flow", lambda name, *_: names.append(name))
    monkeypatch.setattr(run_command, "_print_report_path", lambda _: None)
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
