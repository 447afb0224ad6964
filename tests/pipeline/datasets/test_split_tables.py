"""Lists of splits: one file per split, in order, each name once."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.datasets.split_tables import read_split_csv, read_split_lists
from pipeline.errors import DatasetError


def lists(folder: Path, **texts: str) -> dict[str, Path]:
    for split, text in texts.items():
        (folder / f"{split}.txt").write_text(text, encoding="utf-8")
    return {split: folder / f"{split}.txt" for split in texts}


def test_names_in_order_with_or_without_endings(tmp_path: Path) -> None:
    paths = lists(tmp_path, val="\ufeffc.png\n\n", train="b\n  a.NPY \r\nx.y\ngrüße\n")
    assert read_split_lists(paths) == {"train": ["b", "a", "x.y", "grüße"], "val": ["c"]}


def test_csv_names_lose_their_endings_too(tmp_path: Path) -> None:
    (tmp_path / "s.csv").write_text("key,split\na.png,train\n")
    assert read_split_csv(tmp_path / "s.csv") == {"train": ["a"]}


@pytest.mark.parametrize(
    ("texts", "problem"),
    [
        ({"train": "a\nb\na.png\n"}, r"train.txt:3: key 'a' is on line 1 already"),
        ({"train": "a\n", "val": "b\na\n"}, r"val.txt:2: key 'a' is on line 1 of .*train.txt"),
        ({"train": "\n"}, "list no samples"),
        ({"tr/ain": "a\n"}, "no such file"),
    ],
)
def test_bad_lists_are_refused_by_line(tmp_path: Path, texts: dict, problem: str) -> None:
    paths = lists(tmp_path, **{s: t for s, t in texts.items() if "/" not in s})
    paths |= {split: tmp_path / f"{split}.txt" for split in texts}
    with pytest.raises(DatasetError, match=problem):
        read_split_lists(paths)


def test_a_list_that_is_no_text_is_refused(tmp_path: Path) -> None:
    (tmp_path / "train.txt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DatasetError, match="not a text file in UTF-8"):
        read_split_lists({"train": tmp_path / "train.txt"})
