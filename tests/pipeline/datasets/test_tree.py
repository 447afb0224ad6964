"""How files become listed samples."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.datasets.patterns import Found, Place
from pipeline.datasets.tree import entries_by_split, entries_by_table, make_key, ordered
from pipeline.errors import DatasetError

RGB, LABEL = Path("r.png"), Path("l.png")


def found(*places: Place, path: Path = RGB, splits: tuple[str, ...] = ()) -> Found:
    return Found({place: [path] for place in places}, {*splits, *(p.split for p in places)})


def test_every_place_that_any_modality_has_is_listed() -> None:
    a, b, c = Place("val", "", "a"), Place("train", "fog", "b"), Place("train", "", "c")
    entries = entries_by_split(
        {"rgb": found(a, b, splits=("test",)), "label": found(a, c, path=LABEL)}
    )
    assert list(entries) == ["train", "val", "test"]
    assert [e.place for e in entries["train"]] == [c, b]
    assert entries["test"] == []
    assert dict(entries["val"][0].files) == {"rgb": [RGB], "label": [LABEL]}
    assert dict(entries["train"][1].files) == {"rgb": [RGB], "label": []}


def test_a_table_gives_the_order_and_keeps_names_that_have_no_file() -> None:
    one, two = Place("", "fog", "1"), Place("", "", "2")
    entries = entries_by_table(
        {"rgb": found(one, two), "label": found(one, path=LABEL)},
        {"train": ["2", "1"], "val": ["3"]},
    )
    assert [e.place for e in entries["train"]] == [
        Place("train", "", "2"),
        Place("train", "fog", "1"),
    ]
    assert dict(entries["val"][0].files) == {"rgb": [], "label": []}


def test_a_name_under_two_conditions_is_ambiguous_in_a_table() -> None:
    places = Place("", "fog", "1"), Place("", "sun", "1")
    (entry,) = entries_by_table({"rgb": found(*places)}, {"train": ["1"]})["train"]
    assert dict(entry.files) == {"rgb": [RGB, RGB]}


def test_splits_in_the_usual_order() -> None:
    assert ordered({"x", "val", "test", "a", "train"}) == ["train", "val", "test", "a", "x"]
    with pytest.raises(DatasetError, match=r"split 'a\.b'"):
        ordered(["a.b"])


def test_keys_leave_empty_parts_out() -> None:
    assert make_key("val", "", "a/b") == "val_a_b"
    assert make_key("", "a") == "a"
