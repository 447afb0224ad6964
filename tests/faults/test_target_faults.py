"""Damage to teacher outputs, prompts and indices: refused when read, found by name, made again alike."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from flows.integrity.finding import Kind
from flows.integrity.verify_targets import examine_store
from pipeline.core.progress import progress_bar
from pipeline.errors import CorruptTarget, MissingTarget
from pipeline.shards.manifest import Manifest
from pipeline.storage.files import read_json, sha256_file, write_json
from pipeline.targets.lookup import resolve
from tests.faults.conftest import Made, flip_bit, replace_bytes, truncate

Damage = Callable[[Made], object]


def copy_foreign_record(made: Made) -> None:
    shutil.copy(made.ledger("depth", 1), made.ledger("rgb", 1))


def change_record(**fields: object) -> Damage:
    def damage(made: Made) -> None:
        path = made.ledger("rgb", 1)
        write_json(path, {**read_json(path), **fields})

    return damage


def orphan_record(made: Made) -> None:
    shutil.copy(made.ledger("rgb", 1), made.ledger("rgb", 9))


def swap_chunks(made: Made) -> None:
    """Whole, well-formed chunks in each other's place: no checksum of their own sees it."""
    first, second = made.chunk("rgb", "embedding", 0), made.chunk("rgb", "embedding", 1)
    one, two = first.read_bytes(), second.read_bytes()
    replace_bytes(first, two)
    replace_bytes(second, one)


def array_description(made: Made) -> Path:
    return made.store("rgb") / "targets.zarr" / "train" / "patch" / "zarr.json"


def prompt_chunk(made: Made) -> Path:
    root = Path(str(made.workspace.prompts))
    [path] = root.glob("*/prompts.zarr/class_embedding/c/0/0")
    return path


def dangling_index(made: Made) -> None:
    [path] = (made.store("rgb").parent / "index").glob("rgb-*.json")
    write_json(path, {**read_json(path), "store": "rgb-gone-0123456789ab"})


def index_to_another_modality(made: Made) -> None:
    """Every folder and file is whole; only the way to them is wrong."""
    [path] = (made.store("rgb").parent / "index").glob("depth-*.json")
    write_json(path, {**read_json(path), "store": made.store("rgb").name})


FAULTS: dict[str, tuple[Damage, Kind]] = {
    "flipped bit in an embedding": (
        lambda m: flip_bit(m.chunk("rgb", "embedding", 1)),
        Kind.OBJECT_ALTERED,
    ),
    "flipped bit in patches": (lambda m: flip_bit(m.chunk("nir", "patch", 0)), Kind.OBJECT_ALTERED),
    "truncated chunk": (lambda m: truncate(m.chunk("rgb", "patch", 1)), Kind.OBJECT_SIZE),
    "empty chunk": (lambda m: truncate(m.chunk("rgb", "patch", 1), 0), Kind.OBJECT_SIZE),
    "deleted chunk": (lambda m: m.chunk("depth", "embedding", 1).unlink(), Kind.OBJECT_MISSING),
    "exchanged chunks": (swap_chunks, Kind.OBJECT_ALTERED),
    "deleted record": (lambda m: m.ledger("rgb", 1).unlink(), Kind.LEDGER_MISSING),
    "truncated record": (lambda m: truncate(m.ledger("rgb", 1)), Kind.LEDGER_UNREADABLE),
    "record of another tower": (copy_foreign_record, Kind.LEDGER_FOREIGN),
    "record of other shard bytes": (change_record(shard_sha256="0" * 64), Kind.LEDGER_STALE),
    "record of another number of rows": (change_record(num_rows=3), Kind.LEDGER_WRONG),
    "record without objects": (change_record(objects={}), Kind.LEDGER_WRONG),
    "record of no shard": (orphan_record, Kind.LEDGER_ORPHAN),
    "damaged array description": (lambda m: truncate(array_description(m)), Kind.ARRAY),
    "deleted array description": (lambda m: array_description(m).unlink(), Kind.ARRAY),
    "damaged provenance": (
        lambda m: flip_bit(m.store("rgb") / "provenance.json", 0.5, 0),
        Kind.PROVENANCE,
    ),
    "flipped bit in prompts": (lambda m: flip_bit(prompt_chunk(m)), Kind.PROVENANCE),
    "index that leads nowhere": (dangling_index, Kind.INDEX),
    "index that leads to another modality": (index_to_another_modality, Kind.INDEX),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_every_target_fault_is_named_and_repaired(made: Made, fault: str) -> None:
    damage, kind = FAULTS[fault]
    damage(made)
    found = made.findings()
    assert kind in {finding.kind for finding in found}
    report = made.repair()
    assert report.left == ()
    assert made.findings() == ()
    assert made.files() == made.whole


def test_only_the_corrupt_targets_are_recomputed(made: Made) -> None:
    before = made.inodes()
    flip_bit(made.chunk("nir", "patch", 1))
    made.repair()
    changed = {name for name, inode in made.inodes().items() if before[name] != inode}
    assert changed
    assert all("/nir-" in name for name in changed)
    assert {Path(name).stem for name in changed if "ledger" in name} == {"train-000001"}


@pytest.mark.parametrize("output", ["embedding", "patch"])
def test_readers_refuse_a_flipped_bit(made: Made, output: str) -> None:
    flip_bit(made.chunk("rgb", output, 1))
    store = resolve(made.config, made.workspace, "rgb")
    shard = Manifest.load(made.dataset).all_shards[1]
    with pytest.raises(CorruptTarget, match="expected sha256"):
        store.read(shard, output)


def test_readers_refuse_an_index_that_leads_to_another_modality(made: Made) -> None:
    index_to_another_modality(made)
    with pytest.raises(MissingTarget, match=r"expected targets of depth.*those of rgb.*precompute"):
        resolve(made.config, made.workspace, "depth")


def test_exchanged_stores_are_refused_and_repeated_repair_fixes_both(made: Made) -> None:
    rgb, depth = made.store("rgb"), made.store("depth")
    spare = rgb.with_name("spare")
    rgb.rename(spare)
    depth.rename(rgb)
    spare.rename(depth)
    with pytest.raises(MissingTarget, match="expected targets of rgb"):
        resolve(made.config, made.workspace, "rgb")
    for _ in range(3):
        if not made.repair().left:
            break
    assert made.findings() == ()
    assert made.files() == made.whole


def test_readers_refuse_a_record_of_another_tower(made: Made) -> None:
    copy_foreign_record(made)
    store = resolve(made.config, made.workspace, "rgb")
    shard = Manifest.load(made.dataset).all_shards[1]
    with pytest.raises(MissingTarget):
        store.read(shard, "embedding")


def test_any_flipped_bit_of_a_record_is_found(made: Made) -> None:
    """Every byte, one bit each. Only who wrote the record (`code_version`) nobody can check."""
    path = made.ledger("rgb", 1)
    text = path.read_bytes()
    start = text.index(b'"code_version"')
    unchecked = set(range(start, text.index(b"\n", start)))
    rng = np.random.default_rng([11])
    store = resolve(made.config, made.workspace, "rgb")
    shard = Manifest.load(made.dataset).all_shards[1]
    unseen = []
    with progress_bar("", 0, "", False) as advance:
        for at in range(len(text)):
            data = bytearray(text)
            data[at] ^= 1 << int(rng.integers(8))
            replace_bytes(path, bytes(data))
            findings = examine_store(store.path, [shard], "precompute", deep=True, advance=advance)
            if not [f for f in findings if f.kind != Kind.LEDGER_ORPHAN] and at not in unchecked:
                unseen.append((at, chr(text[at]), chr(data[at])))
    assert unseen == []


def test_targets_in_wrong_rows_and_wrong_norms_are_findings(made: Made) -> None:
    """Objects that agree with their record but cannot be right: a tower that went wrong."""
    store = resolve(made.config, made.workspace, "depth")
    shard = Manifest.load(made.dataset).all_shards[0]
    array = store.array("train", "embedding")
    for change, kind in ((np.nan, Kind.OBJECT_ROWS), (0.7, Kind.OBJECT_NORM)):
        rows = store.read(shard, "embedding").copy()
        rows[0] *= np.float16(change)
        path = array.object_path(0)
        replace_bytes(Path(str(path)), array.encode(rows))
        record = read_json(made.ledger("depth", 0))
        record["objects"]["embedding"] = sha256_file(path)
        write_json(made.ledger("depth", 0), record)
        assert [finding.kind for finding in made.findings()] == [kind]
        made.repair()
    assert made.files() == made.whole


def test_a_store_of_other_settings_is_examined_but_left(made: Made) -> None:
    data = made.config.model_dump(mode="json", exclude_none=True)
    data["teacher"]["max_depth_m"] = 80.0
    other = Made(type(made.config).model_validate(data), made.whole)
    made.chunk("depth", "patch", 1).unlink()
    [finding] = other.findings()
    assert finding.kind == Kind.OBJECT_MISSING
    assert not finding.repairable
    assert "configuration that made" in finding.remedy
    assert other.repair().left[0].finding == finding


def test_missing_targets_are_one_finding_per_store(made: Made) -> None:
    for shard in (0, 1):
        made.ledger("rgb", shard).unlink()
        for output in ("embedding", "patch"):
            made.chunk("rgb", output, shard).unlink()
    [finding] = made.findings(deep=False)
    assert finding.kind == Kind.HOLE
    assert finding.problem == "2 of 4 shards (train-000000, train-000001)"
    assert finding.remedy == "any2seg precompute CONFIG"


def test_findings_are_json(made: Made) -> None:
    flip_bit(made.chunk("rgb", "embedding", 1))
    [finding] = made.findings()
    described = json.loads(json.dumps(finding.as_json()))
    assert described["kind"] == "object_altered"
    assert described["shard"] == "train-000001"
    assert described["modality"] == "rgb"
    assert described["repairable"]
