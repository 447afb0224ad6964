"""Progress outside a terminal: plain lines with the counts, nothing when switched off."""

import pytest

from pipeline.core import progress
from pipeline.core.progress import progress_bar, progress_lines_to


def test_plain_lines_carry_counts_rate_and_note(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress, "PLAIN_LINE_EVERY_S", 0.0)
    with progress_bar("prepare", 4, "samples") as advance:
        advance(3, "shard 0")
    printed = capsys.readouterr().err
    assert "prepare: 3/4 samples" in printed
    assert "shard 0" in printed
    assert "s left" in printed


@pytest.mark.parametrize(("total", "enabled"), [(0, True), (4, False)])
def test_no_units_or_disabled_prints_nothing(
    capsys: pytest.CaptureFixture[str], total: int, enabled: bool
) -> None:
    with progress_bar("prepare", total, "samples", enabled) as advance:
        advance(1)
    assert capsys.readouterr().err == ""


def test_progress_lines_to_redirects_lines_even_in_a_terminal(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    lines: list[str] = []
    with progress_lines_to(lines.append), progress_bar("train", 4, "steps") as advance:
        advance(4)
    assert len(lines) == 1
    assert "train: 4/4 steps" in lines[0]
    assert capsys.readouterr().err == ""
