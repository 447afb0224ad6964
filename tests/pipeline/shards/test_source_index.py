"""Removed, altered and touched source files: told apart, counted, named; nothing is rewritten."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from flows.planning.coverage import READ_AGAIN, coverage_rows
from pipeline.config.config import Config
from pipeline.datasets import open_dataset
from pipeline.datasets.base import SourceSample
from pipeline.formats.parquet import read_rows
from pipeline.shards.manifest import Manifest
from pipeline.shards.prepare import prepare
from pipeline.shards.source_index import (
    ChangedSample,
    SourceChanges,
    SourceIndex,
    compare_sources,
    source_index_path,
)
from pipeline.workspace import Workspace

Prepared = tuple[Config, Workspace, Manifest]


def compare(config: Config, split: str = "train", limit: int | None = None) -> SourceChanges:
    workspace = Workspace.of(config)
    samples = open_dataset(config.dataset, config.specs()).samples(split)
    index = SourceIndex(source_index_path(config, workspace))
    return compare_sources(samples, load(config), split, index, limit=limit)


def load(config: Config) -> Manifest:
    return Manifest.load(Workspace.of(config).dataset(config))


def source(config: Config) -> Path:
    return Path(config.dataset.root)  # type: ignore[attr-defined]


def touch(path: Path) -> None:
    os.utime(path, ns=(1, 1))


def alter(path: Path) -> None:
    with Image.open(path) as image:
        image.point(lambda value: value ^ 1).save(path)


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Keys of the samples whose files are read for their digest."""
    keys: list[str] = []
    real = SourceSample.content_sha256

    def noted(sample: SourceSample) -> str:
        keys.append(sample.key)
        return real(sample)

    monkeypatch.setattr(SourceSample, "content_sha256", noted)
    return keys


def test_unchanged_files_are_not_read(prepared: Prepared, reads: list[str]) -> None:
    assert compare(prepared[0]) == SourceChanges()
    assert reads == []


def test_touched_files_are_read_once_and_not_altered(prepared: Prepared, reads: list[str]) -> None:
    config, workspace, _ = prepared
    touch(source(config) / "rgb/train/003.png")
    assert compare(config) == SourceChanges()
    assert compare(config, limit=0) == SourceChanges(touched=1)
    assert reads == ["train_003"]
    prepare(config, workspace, progress=False)
    assert compare(config, limit=0) == SourceChanges()
    assert reads == ["train_003"] * 2


def test_altered_samples_are_named_with_their_shard(prepared: Prepared, reads: list[str]) -> None:
    config, workspace, _ = prepared
    alter(source(config) / "label/train/005.png")
    (source(config) / "depth/train/000.png").unlink()
    wanted = (
        ChangedSample("train_000", "train-000000"),
        ChangedSample("train_005", "train-000001"),
    )
    assert compare(config).altered == wanted
    report = prepare(config, workspace, progress=False)
    assert report.done == 0
    assert report.details["source"]["train"]["altered"] == 2
    reads.clear()
    assert compare(config).altered == wanted
    assert reads == []


def test_equal_size_and_time_hide_an_alteration_from_stat_alone(prepared: Prepared) -> None:
    """As with git's index; without the index the bytes are compared."""
    config, workspace, _ = prepared
    path = source(config) / "rgb/train/003.png"
    before = path.stat()
    data = bytearray(path.read_bytes())
    data[-20] ^= 1
    path.write_bytes(data)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert compare(config) == SourceChanges()
    source_index_path(config, workspace).unlink()
    assert [sample.key for sample in compare(config).altered] == ["train_003"]


def test_removed_samples_are_named_and_kept_in_their_shards(prepared: Prepared) -> None:
    config, workspace, manifest = prepared
    for index in range(4):
        (source(config) / f"rgb/train/{index:03d}.png").unlink()
        (source(config) / f"depth/train/{index:03d}.png").unlink()
        (source(config) / f"label/train/{index:03d}.png").unlink()
    found = compare(config)
    assert [str(sample) for sample in found.removed] == [
        f"train_{n:03d} in train-000000" for n in range(4)
    ]
    report = prepare(config, workspace, progress=False)
    assert load(config).digest() == manifest.digest()
    assert report.details["source"]["train"]["removed"] == 4
    (line,) = report.details["advice"]
    assert "no longer has 4 samples (train_000 in train-000000" in line
    assert "..." in line
    assert "any2seg prepare CONFIG" in line


def test_following_the_advice_rebuilds_the_shard(prepared: Prepared) -> None:
    """Deleting the tar makes the shard from the source as it is now."""
    config, workspace, manifest = prepared
    alter(source(config) / "rgb/train/001.png")
    manifest.shards("train")[0].path.unlink()
    assert prepare(config, workspace, progress=False).done == 1
    new = load(config)
    assert compare(config) == SourceChanges()
    assert [s.keys for s in new.shards("train")] == [s.keys for s in manifest.shards("train")]
    assert new.shards("train")[0].sha256 != manifest.shards("train")[0].sha256
    assert new.shards("train")[1].sha256 == manifest.shards("train")[1].sha256


def test_the_digest_is_that_of_the_documented_lines(prepared: Prepared) -> None:
    config, _, manifest = prepared
    files = {m: source(config) / m / "train/002.png" for m in ("depth", "label", "rgb")}
    lines = "".join(f"{m}:{hashlib.sha256(p.read_bytes()).hexdigest()}\n" for m, p in files.items())
    row = manifest.rows("train")[2]
    assert row["source_sha256"] == hashlib.sha256(lines.encode()).hexdigest()


def test_copies_with_other_times_give_equal_records(
    prepared: Prepared, tmp_path: Path, tree: Callable[[Path], dict[str, bytes]]
) -> None:
    config, workspace, manifest = prepared
    before = tree(manifest.folder)
    shutil.copytree(source(config), tmp_path / "copy", copy_function=shutil.copyfile)
    shutil.rmtree(source(config))
    (tmp_path / "copy").rename(source(config))
    shutil.rmtree(manifest.folder)
    prepare(config, workspace, progress=False)
    assert tree(manifest.folder) == before


def test_rendered_data_has_no_source(tmp_path: Path) -> None:
    sample = SourceSample("a", "train")
    assert (sample.version(), sample.content_sha256(), sample.has_files) == ("", "", False)


def test_status_reads_at_most_its_limit_again(prepared: Prepared, reads: list[str]) -> None:
    config, workspace, manifest = prepared
    for path in source(config).rglob("*.png"):
        touch(path)
    row = coverage_rows(config, workspace, manifest)[0]
    assert (row.note, row.advice) == ("", ())
    assert len(reads) == 13 < READ_AGAIN
    changes = compare(config, limit=2)
    assert changes == SourceChanges(touched=8)
    assert str(changes) == "8 touched"
    assert "any2seg prepare CONFIG" in changes.advice("train")[0]


def test_status_shows_changes_and_advice(prepared: Prepared) -> None:
    config, workspace, manifest = prepared
    alter(source(config) / "rgb/train/001.png")
    for modality in ("rgb", "depth", "label"):
        (source(config) / modality / "train/009.png").unlink()
    rows = coverage_rows(config, workspace, manifest)
    assert rows[0].note == "1 removed, 1 altered"
    assert rows[0].complete
    removed, altered = rows[0].advice
    assert "train_009 in train-000002" in removed
    assert "train_001 in train-000000" in altered
    assert rows[1].advice == ()


def test_a_lost_or_damaged_index_only_costs_reading(prepared: Prepared, reads: list[str]) -> None:
    config, workspace, _ = prepared
    path = source_index_path(config, workspace)
    whole = path.read_bytes()
    path.write_bytes(whole[:-3])
    assert compare(config) == SourceChanges()
    assert len(reads) == 10
    prepare(config, workspace, progress=False)
    assert path.read_bytes() == whole
    assert {row["key"] for row in read_rows(path)} == {
        key for shard in load(config).all_shards for key in shard.keys
    }


def test_a_file_that_is_being_written_is_refused_and_tried_again(
    make_source: Callable[..., Path],
    make_config: Callable[..., Config],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    root = make_source(train=3)
    config = make_config("prepare.max_refused=0.5")
    real = SourceSample.content_sha256

    def written_meanwhile(sample: SourceSample) -> str:
        digest = real(sample)
        if sample.key == "train_001":
            os.utime(root / "rgb/train/001.png")  # now
        return digest

    monkeypatch.setattr(SourceSample, "content_sha256", written_meanwhile)
    (failure,) = prepare(config, Workspace.of(config), progress=False).failed
    assert failure.unit == "train_001"
    assert "changed while they were read" in failure.reason
    monkeypatch.undo()
    row = coverage_rows(config, Workspace.of(config), load(config))[0]
    assert (row.committed, row.missing) == (2, 1)
    assert prepare(config, Workspace.of(config), progress=False).failed == ()
    assert load(config).shards("train")[1].keys == ("train_001",)
