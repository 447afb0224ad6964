"""What the doctor prints: aligned tables, and no more advice than one can take."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from pipeline.config.config import Config
from pipeline.onboarding.doctor import examine
from pipeline.onboarding.doctor_text import lines, table


def test_columns_are_aligned_and_numbers_are_right_aligned() -> None:
    rows = [
        ["name", "found", "form"],
        ["a", "5", "8-bit"],
        ["bcdef", "-", "x"],
        ["c", "3 of 7", ""],
    ]
    assert table(rows) == [
        "name   found   form",
        "a           5  8-bit",
        "bcdef       -  x",
        "c      3 of 7",
    ]


def test_only_the_first_three_problems_are_listed(
    make_source: Callable[..., Path], make_config: Callable[..., Config]
) -> None:
    root = make_source(train=6, val=3)
    for index, name in enumerate(("rgb", "depth", "label")):
        (root / name / f"train/00{index}.png").unlink()
    (root / "rgb/val/002.png").write_bytes(b"x")
    report = list(lines(examine(make_config(), progress=False), sheet="sheet.png"))
    assert "Contact sheet: sheet.png" in report
    assert report[-5] == "Fix first:"
    assert [line[:4] for line in report[-4:-1]] == ["  1.", "  2.", "  3."]
    assert report[-1] == "  ... and 1 more"
