"""Progress outside a terminal: plain lines with the counts, nothing when switched off."""

import pytest

from pipeline import progress
from pipeline.progress import progress_bar


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
def test_nothing_to_do_or_switched_off_prints_nothing(
    capsys: pytest.CaptureFixture[str], total: int, enabled: bool
) -> None:
    with progress_bar("prepare", total, "samples", enabled) as advance:
        advance(1)
    assert capsys.readouterr().err == ""
