"""How often a command reads its config file in its own process."""

from __future__ import annotations

import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner

from flows.cli.main import app

Loads = Callable[..., int]


@pytest.fixture
def loads(field: Path, monkeypatch: pytest.MonkeyPatch) -> Loads:
    """Runs `any2seg COMMAND CONFIG ...` in this process; returns how often it parsed the file."""
    text, parse = field.read_text(), tomllib.loads
    parsed: list[str] = []

    def counted(source: str) -> dict[str, object]:
        parsed.extend([source] if source == text else [])
        return parse(source)

    monkeypatch.setattr(tomllib, "loads", counted)

    def run(command: str, *options: str) -> int:
        before = len(parsed)
        result = CliRunner().invoke(app, [command, str(field), *options])
        assert result.exit_code == 0, (result.output, result.exception)
        return len(parsed) - before

    return run


PLAIN = ("--set", "student.lscd.inter=0", "--set", "student.lscd.intra=0")
"""No loss reads a target, so no teacher has to run before `train`."""


def test_a_command_reads_its_config_once(loads: Loads) -> None:
    for words in (
        ["prepare"],
        ["status"],
        ["plan", "--no-probe"],
        ["train"],
        ["evaluate"],
        ["report"],
        ["verify"],
    ):
        assert loads(*words, *PLAIN) == 1, words


@pytest.mark.server
@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.usefixtures("prefect")
def test_a_flow_reads_its_config_once_more(loads: Loads) -> None:
    """A flow's parameters are stored by Prefect, so they are a path and overrides and not a config."""
    assert loads("refresh-teacher") == 2
    assert loads("run") == 2
    assert loads("run") == 1  # nothing to do, so no flow
