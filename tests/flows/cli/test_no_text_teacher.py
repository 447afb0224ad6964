"""`train` without targets that no teacher pass could make names the setting, not the pass."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from flows.cli.main import app
from pipeline.errors import ConfigError, MissingTarget
from tests.teacher.families.tiny_checkpoints import write_dino


@pytest.mark.parametrize(
    ("intra", "error", "message"),
    [
        ("0.1", ConfigError, r"has no text tower.*student\.lscd\.intra = 0\.1"),
        ("0", MissingTarget, "Run `any2seg precompute"),
    ],
)
def test_missing_targets_of_a_teacher_without_text(
    field: Path, tmp_path: Path, intra: str, error: type[Exception], message: str
) -> None:
    write_dino(tmp_path / "dino")
    words = ["train", str(field), "--set", f"teacher.name={tmp_path / 'dino'}"]
    words += ["--set", f"student.lscd.intra={intra}", "--set", "student.lscd.inter=0.05"]
    runner = CliRunner()
    prepared = runner.invoke(app, ["prepare", *words[1:-3], "student.lscd.intra=0"])
    assert prepared.exit_code == 0, prepared.output
    result = runner.invoke(app, words)
    assert isinstance(result.exception, error)
    with pytest.raises(error, match=message):
        raise result.exception
