"""The index from requests to stores."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.errors import MissingTarget
from pipeline.targets.lookup import look_up, point_to, slug


def test_a_request_finds_its_store_and_only_that(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        point_to(tmp_path, "rgb", {"teacher": name}, tmp_path / name)
    assert look_up(tmp_path, "rgb", {"teacher": "one"}) == tmp_path / "one"
    assert look_up(tmp_path, "rgb", {"teacher": "two"}) == tmp_path / "two"
    for what, teacher in (("nir", "one"), ("rgb", "three")):
        with pytest.raises(MissingTarget, match=f"{what} as configured. Run `any2seg precompute"):
            look_up(tmp_path, what, {"teacher": teacher})


def test_the_last_pass_wins_and_writing_again_changes_nothing(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        point_to(tmp_path, "rgb", {"teacher": "x"}, tmp_path / name)
    assert look_up(tmp_path, "rgb", {"teacher": "x"}) == tmp_path / "two"
    (entry,) = (tmp_path / "index").iterdir()
    before = entry.stat().st_mtime_ns
    point_to(tmp_path, "rgb", {"teacher": "x"}, tmp_path / "two")
    assert entry.stat().st_mtime_ns == before


def test_a_moved_workspace_still_finds_its_stores(tmp_path: Path) -> None:
    root = tmp_path / "a"
    (root / "one").mkdir(parents=True)
    point_to(root, "rgb", {}, root / "one")
    moved = root.rename(tmp_path / "b")
    assert look_up(moved, "rgb", {}) == moved / "one"


def test_a_garbled_entry_is_as_good_as_none(tmp_path: Path) -> None:
    (tmp_path / "one").mkdir()
    point_to(tmp_path, "rgb", {}, tmp_path / "one")
    (entry,) = (tmp_path / "index").iterdir()
    entry.write_text("{")
    with pytest.raises(MissingTarget):
        look_up(tmp_path, "rgb", {})
    point_to(tmp_path, "rgb", {}, tmp_path / "one")
    assert look_up(tmp_path, "rgb", {}) == tmp_path / "one"


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("languagebind-tiny", "languagebind-tiny"),
        ("LanguageBind/LanguageBind_Depth", "languagebind_depth"),
        ("/data/My Towers/v1.5/", "v1-5"),
        ("...", "teacher"),
    ],
)
def test_slugs_are_plain(name: str, expected: str) -> None:
    assert slug(name) == expected
