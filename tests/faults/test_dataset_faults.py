"""Damage to a prepared dataset: reported by name, repaired to identical bytes, or refused."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from flows.integrity.finding import Kind
from flows.integrity.verify_dataset import examine_dataset
from pipeline.config.config import Config
from pipeline.errors import CorruptShard
from pipeline.formats.shard_tar import read_shard
from pipeline.shards.manifest import MANIFEST_SCHEMA, Manifest, read_rows, read_table, write_rows
from pipeline.shards.prepare import prepare
from pipeline.storage.files import write_json
from tests.faults.conftest import Made, files_of, flip_bit, moved, replace_bytes, truncate

Damage = Callable[[Made], object]
TAR, RECORD = "train-000001.tar", "train-000001.parquet"


def leave_tar(made: Made) -> None:
    shutil.copy(made.shards / TAR, made.shards / "train-000009.tar")


def change_classes(made: Made) -> None:
    path = made.dataset / "dataset.json"
    replace_bytes(path, path.read_bytes().replace(b'"car"', b'"cat"'))


def forget_manifest_rows(made: Made) -> None:
    path = made.dataset / "manifest.parquet"
    rows = [row for row in read_rows(path) if row["shard"] != 1]
    write_rows(path, rows, MANIFEST_SCHEMA)


def change_record(made: Made) -> None:
    """A record that reads well but says something else than the manifest."""
    rows = read_rows(made.shards / RECORD)
    rows[2]["condition"] = "night"
    write_rows(made.shards / RECORD, rows, MANIFEST_SCHEMA)


FAULTS: dict[str, tuple[Damage, Kind]] = {
    "flipped bit in a shard": (lambda m: flip_bit(m.shards / TAR), Kind.SHARD_ALTERED),
    "truncated shard": (lambda m: truncate(m.shards / TAR), Kind.SHARD_TRUNCATED),
    "deleted shard": (lambda m: (m.shards / TAR).unlink(), Kind.SHARD_MISSING),
    "flipped bit in a record": (
        lambda m: flip_bit(m.shards / RECORD, 0.1),
        Kind.SHARD_RECORD_UNREADABLE,
    ),
    "truncated record": (lambda m: truncate(m.shards / RECORD), Kind.SHARD_RECORD_UNREADABLE),
    "deleted record": (lambda m: (m.shards / RECORD).unlink(), Kind.SHARD_RECORD_MISSING),
    "record that says something else": (change_record, Kind.MANIFEST_DIFFERS),
    "flipped bit in the manifest": (
        lambda m: flip_bit(m.dataset / "manifest.parquet", 0.1),
        Kind.MANIFEST_UNREADABLE,
    ),
    "deleted manifest": (
        lambda m: (m.dataset / "manifest.parquet").unlink(),
        Kind.MANIFEST_UNREADABLE,
    ),
    "manifest that lacks a shard": (forget_manifest_rows, Kind.MANIFEST_DIFFERS),
    "deleted quarantine": (
        lambda m: (m.dataset / "quarantine.parquet").unlink(),
        Kind.QUARANTINE_DIFFERS,
    ),
    "other classes": (change_classes, Kind.DESCRIPTION),
    "unreadable description": (lambda m: truncate(m.dataset / "dataset.json"), Kind.DESCRIPTION),
    "tar without record": (leave_tar, Kind.SHARD_LEFTOVER),
    "temporary file": (
        lambda m: (m.shards / "train-000007.tar.1.partial").write_bytes(b"half"),
        Kind.PARTIAL,
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_every_dataset_fault_is_named_and_repaired(made: Made, fault: str) -> None:
    damage, kind = FAULTS[fault]
    damage(made)
    found = made.findings()
    assert kind in {finding.kind for finding in found}
    assert all(finding.repairable for finding in found)
    report = made.repair()
    assert report.left == ()
    assert made.findings() == ()
    assert made.files() == made.whole


def test_any_flipped_bit_of_a_record_is_found(made: Made) -> None:
    """Pages carry checksums; what they do not cover contradicts the manifest or cannot be read."""
    path = made.shards / RECORD
    data = path.read_bytes()
    rng = np.random.default_rng([12])
    unseen = []
    for at in rng.choice(len(data), 60, replace=False).tolist():
        changed = bytearray(data)
        changed[at] ^= 1 << int(rng.integers(8))
        replace_bytes(path, bytes(changed))
        found = examine_dataset(made.config, made.workspace, deep=False, progress=False)
        unseen += [] if found or same_rows(path, data) else [at]
    assert unseen == []


def same_rows(path: Path, data: bytes) -> bool:
    """Whether a changed file still reads as the same rows: then nothing is lost."""
    whole = path.with_name("whole.parquet.copy")
    whole.write_bytes(data)
    same: bool = read_table(path).equals(read_table(whole))
    whole.unlink()
    return same


def test_a_shallow_examination_finds_missing_and_truncated_shards(made: Made) -> None:
    truncate(made.shards / TAR)
    flip_bit(made.shards / "train-000000.tar")
    assert [f.kind for f in made.findings(deep=False)] == [Kind.SHARD_TRUNCATED]


def test_a_dry_run_changes_nothing(made: Made) -> None:
    flip_bit(made.shards / TAR)
    before = made.files()
    report = made.repair(dry_run=True)
    assert [finding.kind for finding in report.fixed] == [Kind.SHARD_ALTERED]
    assert made.files() == before


def test_only_the_corrupt_shard_is_written(made: Made) -> None:
    before = made.inodes()
    flip_bit(made.shards / TAR)
    made.repair()
    changed = {name for name, inode in made.inodes().items() if before[name] != inode}
    assert {Path(name).stem for name in changed} == {"train-000001"}


def test_readers_refuse_a_damaged_shard(made: Made) -> None:
    flip_bit(made.shards / TAR)
    shard = Manifest.load(made.dataset).all_shards[1]
    with pytest.raises(CorruptShard, match="expected sha256"):
        list(read_shard(shard.path, shard.sha256))


@pytest.fixture
def own_source(original: tuple[Config, Path], tmp_path: Path) -> Made:
    """A prepared workspace whose pictures may be changed."""
    config, root = original
    shutil.copytree(root / "pictures", tmp_path / "pictures")
    data = config.model_dump(mode="json", exclude_none=True)
    data["dataset"]["root"] = str(tmp_path / "pictures")
    config = moved(Config.model_validate(data), tmp_path / "workspace")
    made = Made(config, {})
    prepare(config, made.workspace, progress=False)
    return Made(config, files_of(tmp_path / "workspace"))


def test_an_altered_source_never_replaces_a_shard(own_source: Made, tmp_path: Path) -> None:
    picture = tmp_path / "pictures" / "rgb" / "train" / "005.png"
    shutil.copy(picture.with_name("006.png"), picture)
    truncate(own_source.shards / TAR)
    damaged = own_source.files()
    report = own_source.repair()
    [left] = report.left
    assert "the source gives other bytes now" in left.reason
    assert own_source.files() == damaged


def test_a_missing_source_is_named(own_source: Made, tmp_path: Path) -> None:
    for picture in (tmp_path / "pictures").rglob("005.png"):
        picture.unlink()
    (own_source.shards / TAR).unlink()
    damaged = own_source.files()
    report = own_source.repair()
    assert "no longer has sample train_005" in report.left[0].reason
    assert own_source.files() == damaged


def test_a_copied_shard_is_never_committed_a_second_time(made: Made) -> None:
    for name in ("train-000009", "train-000001 (copy)"):
        for ending in ("tar", "parquet"):
            shutil.copy(made.shards / f"train-000001.{ending}", made.shards / f"{name}.{ending}")
    damaged = made.files()
    reasons = sorted(left.reason for left in made.repair().left)
    assert ["it is a copy. Delete it" in reasons[0], "expected a name as" in reasons[1]] == [
        True
    ] * 2
    assert made.files() == damaged
    for name in ("train-000009", "train-000001 (copy)"):
        for ending in ("tar", "parquet"):
            (made.shards / f"{name}.{ending}").unlink()
    assert made.findings() == ()


def test_an_unprepared_workspace_has_no_findings(made: Made, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    empty = Made(moved(made.config, tmp_path / "empty"), {})
    assert empty.findings() == ()


def test_a_description_of_another_dataset_is_a_finding(made: Made) -> None:
    write_json(made.dataset / "dataset.json", {"schema": 1})
    assert [f.kind for f in made.findings()] == [Kind.DESCRIPTION]
    assert made.repair().left == ()
    assert made.files() == made.whole
