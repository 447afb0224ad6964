"""Commit records of a dataset: what counts, what does not, and damage."""

from __future__ import annotations

from itertools import islice
from pathlib import Path

import pytest

from pipeline.datasets.base import SourceSample
from pipeline.errors import CorruptShard
from pipeline.shards.commit import DatasetRecords
from pipeline.shards.manifest import (
    MANIFEST,
    QUARANTINE,
    read_rows,
    record_path,
    refusals_path,
    shard_path,
)
from pipeline.shards.sample_encoder import EncodedSample, Refused


def good(key: str) -> EncodedSample:
    facts = {
        "key": key,
        "split": "train",
        "condition": "",
        "corner_case": "",
        "modalities": ["rgb"],
        "height": 2,
        "width": 2,
        "class_pixels": [4],
        "ignored_pixels": 0,
        "statistics": [],
        "source_sha256": "",
    }
    return EncodedSample(key, {"rgb.png": b"x", "label.png": b"y", "meta.json": b"{}"}, facts)


def bad(key: str) -> Refused:
    return Refused(key, "broken", "")


def sample(key: str) -> SourceSample:
    return SourceSample(key, "train")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Shard 0 with a good and a bad sample, a gap at 1 (all bad), shard 2."""
    records = DatasetRecords(tmp_path)
    records.commit("train", 0, [good("a"), bad("b")])
    records.commit("train", 1, [bad("c"), bad("d")])
    records.commit("train", 2, [good("e")])
    return tmp_path


def known(folder: Path) -> str:
    records = DatasetRecords(folder)
    return "".join(key for key in "abcdefg" if records.is_known(sample(key)))


def test_committed_and_refused_samples_are_known(folder: Path) -> None:
    records = DatasetRecords(folder)
    assert known(folder) == "abcde"
    assert records.keys == {"a", "e"}
    assert records.num_shards == 2
    assert records.refusal(sample("b")) == "broken"
    assert records.refusal(sample("a")) is None
    assert list(islice(records.free_indices("train"), 2)) == [3, 4]
    assert list(islice(records.free_indices("val"), 2)) == [0, 1]


def test_a_tar_without_a_record_does_not_count(folder: Path) -> None:
    """Nor do the refusals of its chunk: all its samples must be met again."""
    record_path(shard_path(folder, "train", 0)).unlink()
    assert known(folder) == "cde"
    assert next(DatasetRecords(folder).free_indices("train")) == 0


def test_a_record_without_its_tar_is_deleted(folder: Path) -> None:
    tar = shard_path(folder, "train", 0)
    tar.unlink()
    assert known(folder) == "cde"
    assert not record_path(tar).exists()


def test_refusals_of_an_earlier_attempt_are_removed(folder: Path) -> None:
    tar = shard_path(folder, "train", 0)
    record_path(tar).unlink()
    DatasetRecords(folder).commit("train", 0, [good("a"), good("b")])
    assert not refusals_path(tar).exists()
    assert DatasetRecords(folder).keys == {"a", "b", "e"}


def test_a_fixed_sample_leaves_the_quarantine(folder: Path) -> None:
    records = DatasetRecords(folder)
    records.merge(["train"])
    assert [row["key"] for row in read_rows(folder / QUARANTINE)] == ["b", "c", "d"]
    records.commit("train", 3, [good("c")])
    records.merge(["train"])
    assert [row["key"] for row in read_rows(folder / QUARANTINE)] == ["b", "d"]
    assert [row["key"] for row in read_rows(folder / MANIFEST)] == ["a", "e", "c"]


def test_a_damaged_record_raises_corrupt_shard_naming_it(folder: Path) -> None:
    path = record_path(shard_path(folder, "train", 2))
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(CorruptShard, match=r"train-000002.parquet: .*any2seg prepare"):
        DatasetRecords(folder)
