"""Splits guessed from folders, tables and lists, or drawn."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from pipeline.errors import DatasetError
from pipeline.onboarding.guess_splits import Splits, guess_splits

NAMES = [f"//{n:03d}" for n in range(10)]


def sizes(splits: Splits) -> dict[str, int]:
    return {split: len(names) for split, names in splits.names.items()}


def in_folders(*folders: str) -> list[str]:
    return [f"{folder}//{n}" for folder in folders for n in range(4)]


def test_split_folders_with_our_names_need_no_table(tmp_path: Path) -> None:
    assert guess_splits(tmp_path, in_folders("train", "val"), clean=True).by_folder
    unclean = guess_splits(tmp_path, in_folders("train", "val"), clean=False)
    assert sizes(unclean) == {"train": 4, "val": 4}


def test_split_folders_with_other_names_become_a_table(tmp_path: Path) -> None:
    splits = guess_splits(tmp_path, in_folders("Training", "validation"), clean=True)
    assert sizes(splits) == {"train": 4, "val": 4}
    assert splits.reason == "from the folders"


def test_a_single_training_folder_is_divided(tmp_path: Path) -> None:
    names = [f"train//{n}" for n in range(20)]
    splits = guess_splits(tmp_path, names, clean=True)
    assert sizes(splits) == {"train": 14, "val": 3, "test": 3}
    assert splits.reason.startswith("from the folders; val and test drawn at random")


@pytest.mark.parametrize(
    "lines",
    [
        ["key,split", *(f"{n:03d},{'train' if n < 7 else 'val'}" for n in range(10))],
        ["split;path", *(f"{'TRAINING' if n < 7 else 'dev'};rgb/{n:03d}.png" for n in range(10))],
        ["n\tf\ts", *(f"1\t{n:03d}_rgb.png\t{'train' if n < 7 else 'val'}" for n in range(10))],
    ],
)
def test_split_tables_of_several_forms(tmp_path: Path, lines: Sequence[str]) -> None:
    (tmp_path / "a.csv").write_text("id,price\n1,2\n")
    (tmp_path / "meta").mkdir()
    (tmp_path / "meta/list.csv").write_text("\n".join(lines), encoding="utf-8-sig")
    splits = guess_splits(tmp_path, NAMES, clean=True)
    assert splits.names == {"train": NAMES[:7], "val": NAMES[7:]}
    assert splits.reason == "from meta/list.csv"


def test_split_lists_of_names(tmp_path: Path) -> None:
    (tmp_path / "train.txt").write_text("000.png\n001.png\n002.png\n")
    (tmp_path / "test.txt").write_text("003\n004\n")
    (tmp_path / "readme.txt").write_text("000 001")
    splits = guess_splits(tmp_path, NAMES, clean=True)
    assert splits.names == {"train": NAMES[:3], "test": NAMES[3:5]}


def test_a_name_that_several_samples_end_in_needs_more_of_its_path(tmp_path: Path) -> None:
    names = [f"//{scene}/{n}" for scene in "ab" for n in range(3)]
    rows = [f"{s}/{n},{'train' if s == 'a' else 'val'}" for s in "ab" for n in range(3)]
    (tmp_path / "s.csv").write_text("\n".join(["name,set", *rows]))
    assert guess_splits(tmp_path, names, clean=True).names == {
        "train": names[:3],
        "val": names[3:],
    }


def test_a_drawn_split_is_reproducible_and_needs_three_samples(tmp_path: Path) -> None:
    (tmp_path / "broken.csv").write_bytes(b"\xff\xfe\x00key,split")
    splits = guess_splits(tmp_path, NAMES, clean=True)
    assert splits == guess_splits(tmp_path, NAMES, clean=True)
    assert splits != guess_splits(tmp_path, NAMES, clean=True, seed=1)
    assert sorted(sum(map(list, splits.names.values()), [])) == NAMES
    with pytest.raises(DatasetError, match="expected at least 3"):
        guess_splits(tmp_path, NAMES[:2], clean=True)
