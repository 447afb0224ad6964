"""Patterns find files by the parts of their paths."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from pipeline.datasets.patterns import (
    Match,
    check_pattern,
    find_files,
    hidden,
    hidden_text,
    visible,
)


def touch(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()


def names(root: Path, pattern: str) -> dict[Match, list[str]]:
    matches = find_files(root, pattern).files
    return {p: [str(f.relative_to(root)) for f in files] for p, files in matches.items()}


def test_stars_name_the_sample_and_fields_its_place(tmp_path: Path) -> None:
    touch(
        tmp_path,
        "left/train/aachen/aachen_000_left.png",
        "left/val/ulm/ulm_1_left.png",
        "left/val/ulm/ulm_1_right.png",
        "left/val/notes.txt",
    )
    assert names(tmp_path, "left/{split}/*/*_left.png") == {
        Match("train", "", "aachen/aachen_000"): ["left/train/aachen/aachen_000_left.png"],
        Match("val", "", "ulm/ulm_1"): ["left/val/ulm/ulm_1_left.png"],
    }


def test_conditions_and_several_tokens_in_one_part(tmp_path: Path) -> None:
    touch(tmp_path, "fog_train/7-rgb.png", "sun_val/8-rgb.png", "sun/9-rgb.png")
    assert names(tmp_path, "{condition}_{split}/*-rgb.png") == {
        Match("train", "fog", "7"): ["fog_train/7-rgb.png"],
        Match("val", "sun", "8"): ["sun_val/8-rgb.png"],
    }


def test_a_field_that_comes_twice_must_agree(tmp_path: Path) -> None:
    touch(tmp_path, "train/train_1.png", "train/val_2.png", "val/val_3.png")
    assert set(names(tmp_path, "{split}/{split}_*.png")) == {
        Match("train", "", "1"),
        Match("val", "", "3"),
    }


def test_without_an_ending_every_image_matches(tmp_path: Path) -> None:
    touch(tmp_path, "a/x.png", "a/x.JPG", "a/y.tif", "a/z.txt", "a/.hidden.png")
    assert names(tmp_path, "a/*") == {
        Match("", "", "x"): ["a/x.JPG", "a/x.png"],
        Match("", "", "y"): ["a/y.tif"],
    }


def test_arrays_match_only_where_they_are_named(tmp_path: Path) -> None:
    touch(tmp_path, "a/x.npy", "a/x.bin")
    assert names(tmp_path, "a/*") == {}
    assert list(names(tmp_path, "a/*.npy")) == [Match("", "", "x")]


def test_folders_without_files_still_name_their_split(tmp_path: Path) -> None:
    (tmp_path / "rgb/test").mkdir(parents=True)
    matches = find_files(tmp_path, "rgb/{split}/*")
    assert (matches.splits, dict(matches.files)) == ({"test"}, {})


def test_hostile_roots_links_and_special_letters(hostile_root: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    touch(outside, "a[1]+(x).png")
    os.symlink(outside, hostile_root / "train")
    os.symlink(hostile_root, outside / "loop")
    matches = names(hostile_root, "{split}/*.png")
    assert list(matches) == [Match("train", "", "a[1]+(x)")]
    assert find_files(hostile_root / "nowhere", "{split}/*.png").files == {}


@pytest.mark.parametrize(
    ("pattern", "problem"),
    [
        ("/abs/*.png", "expected a path under the root"),
        ("../*.png", "expected a path under the root"),
        ("a//*.png", "expected a path under the root"),
        ("", "expected a path under the root"),
        ("{split}/a.png", "expected a \\* for the name"),
        ("{spilt}/*.png", "unknown {spilt}; expected {split} or {condition}"),
    ],
)
def test_bad_patterns_are_named(pattern: str, problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        check_pattern(pattern)
    assert check_pattern("a/{split}/*") == "a/{split}/*"


def test_hidden_images_are_listed_to_be_named_and_match_nothing(tmp_path: Path) -> None:
    for name in ("a.png", "._a.png", ".b.TIF", ".DS_Store", "._notes.txt"):
        (tmp_path / name).write_bytes(b"x")
    assert [path.name for path in hidden(tmp_path)] == ["._a.png", ".b.TIF"]
    assert [path.name for path in visible(tmp_path)] == ["a.png"]
    assert list(find_files(tmp_path, "*.png").files) == [Match("", "", "a")]
    assert hidden(tmp_path / "none") == hidden(tmp_path / "a.png") == []
    assert hidden_text(["._a.png"]) == "1 hidden file passed over (._a.png)"
    assert hidden_text(["._a.png", "._b.png"]) == "2 hidden files passed over (._a.png, ...)"
