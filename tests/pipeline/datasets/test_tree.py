"""How files become listed samples."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.datasets.patterns import Match, Matches
from pipeline.datasets.tree import (
    entries_by_split,
    entries_by_table,
    make_key,
    max_key_bytes,
    ordered,
)
from pipeline.errors import DatasetError

RGB, LABEL = Path("r.png"), Path("l.png")


def matches_of(*samples: Match, path: Path = RGB, splits: tuple[str, ...] = ()) -> Matches:
    return Matches({match: [path] for match in samples}, {*splits, *(p.split for p in samples)})


def test_every_location_that_any_modality_has_is_listed() -> None:
    a, b, c = Match("val", "", "a"), Match("train", "fog", "b"), Match("train", "", "c")
    entries = entries_by_split(
        {"rgb": matches_of(a, b, splits=("test",)), "label": matches_of(a, c, path=LABEL)}
    )
    assert list(entries) == ["train", "val", "test"]
    assert [e.match for e in entries["train"]] == [c, b]
    assert entries["test"] == []
    assert dict(entries["val"][0].files) == {"rgb": [RGB], "label": [LABEL]}
    assert dict(entries["train"][1].files) == {"rgb": [RGB], "label": []}


def test_a_table_gives_the_order_and_keeps_names_that_have_no_file() -> None:
    one, two = Match("", "fog", "1"), Match("", "", "2")
    entries = entries_by_table(
        {"rgb": matches_of(one, two), "label": matches_of(one, path=LABEL)},
        {"train": ["2", "1"], "val": ["3"]},
    )
    assert [e.match for e in entries["train"]] == [
        Match("train", "", "2"),
        Match("train", "fog", "1"),
    ]
    assert dict(entries["val"][0].files) == {"rgb": [], "label": []}


def test_a_name_under_two_conditions_is_ambiguous_in_a_table() -> None:
    samples = Match("", "fog", "1"), Match("", "sun", "1")
    (entry,) = entries_by_table({"rgb": matches_of(*samples)}, {"train": ["1"]})["train"]
    assert dict(entry.files) == {"rgb": [RGB, RGB]}


def test_splits_in_the_usual_order() -> None:
    assert ordered({"x", "val", "test", "a", "train"}) == ["train", "val", "test", "a", "x"]
    with pytest.raises(DatasetError, match=r"split 'a\.b'"):
        ordered(["a.b"])


def test_keys_leave_empty_parts_out() -> None:
    assert make_key("val", "", "a/b") == "val_a_b"
    assert make_key("", "a") == "a"


def test_a_key_that_fits_stays_and_a_longer_one_is_cut_and_named_by_its_digest() -> None:
    longest = max_key_bytes(["rgb"])
    fits = "k" * (longest - len("train_"))
    assert make_key("train", fits, max_bytes=longest) == f"train_{fits}"
    one, other = (make_key("train", fits + end, max_bytes=longest) for end in ("kk", "kl"))
    assert len(one) == len(other) == longest
    assert one != other
    assert one.startswith("train_kkk")
    # Parts that read alike once they are joined stay different.
    parts = [
        make_key("a" * 60, "b" * 60, max_bytes=80),
        make_key("a" * 60 + "_" + "b" * 60, max_bytes=80),
    ]
    assert parts[0] != parts[1]


def test_the_longest_key_fits_with_every_member() -> None:
    for modalities in (["rgb"], ["rgb", "near_infrared_camera"], []):
        key = "k" * max_key_bytes(modalities)
        names = [f"{key}.{name}.npy.zst" for name in (*modalities, "label")]
        assert max(map(len, names)) == 100
    assert max_key_bytes(["m" * 80]) == 32
