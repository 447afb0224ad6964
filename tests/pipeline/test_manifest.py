"""The manifest: rows, shards, digests, and errors that name the next command."""

from __future__ import annotations

from pathlib import Path

import pyarrow.parquet as pq
import pytest

from pipeline.config import Config
from pipeline.errors import DatasetError
from pipeline.manifest import (
    MANIFEST,
    MANIFEST_SCHEMA,
    Manifest,
    in_order,
    read_rows,
    record_path,
    refusals_path,
    shard_path,
)
from pipeline.prepare import prepare
from pipeline.workspace import Workspace

Prepared = tuple[Config, Workspace, Manifest]


def test_shards_carry_what_the_rows_say(prepared: Prepared) -> None:
    _, _, manifest = prepared
    assert manifest.num_samples == 13
    assert manifest.classes == ("soil", "crop", "weed")
    assert set(manifest.modalities) == {"rgb", "depth"}
    shard = manifest.shards("train")[1]
    assert (shard.split, shard.index, shard.name) == ("train", 1, "train-000001")
    assert shard.path == shard_path(manifest.folder, "train", 1)
    assert shard.keys == ("train_004", "train_005", "train_006", "train_007")
    assert shard.present == {"rgb": (True,) * 4, "depth": (True,) * 4}
    assert shard.conditions == ("",) * 4
    assert len(manifest.rows("val")) == 3


def test_absent_modalities_are_marked(make_source, make_config, tmp_path: Path) -> None:
    root = make_source(train=3)
    (root / "depth/train/001.png").unlink()
    config = make_config("dataset.missing=allow")
    workspace = Workspace.of(config)
    prepare(config, workspace, progress=False)
    shard = Manifest.load(workspace.dataset(config)).shards("train")[0]
    assert shard.present == {"rgb": (True, True, True), "depth": (True, False, True)}


def test_byte_spans_point_into_the_tar(prepared: Prepared) -> None:
    _, _, manifest = prepared
    row = manifest.rows("train")[5]
    data = shard_path(manifest.folder, row["split"], row["shard"]).read_bytes()
    names = []
    for member in row["members"]:
        body = data[member["offset"] : member["offset"] + member["num_bytes"]]
        assert body.startswith(b"{" if member["name"] == "meta.json" else b"\x28\xb5\x2f\xfd")
        names.append(member["name"])
    assert names == ["depth.npy.zst", "label.npy.zst", "meta.json", "rgb.npy.zst"]


def test_the_file_has_the_written_schema_and_is_the_records(prepared: Prepared) -> None:
    _, _, manifest = prepared
    assert pq.read_schema(manifest.folder / MANIFEST).equals(MANIFEST_SCHEMA)
    tars = sorted((manifest.folder / "shards").glob("*/*.tar"))
    records = [row for tar in tars for row in read_rows(record_path(tar))]
    assert read_rows(manifest.folder / MANIFEST) == in_order(records, ["train", "val"])


def test_the_digest_depends_on_content_alone(prepared: Prepared) -> None:
    _, _, manifest = prepared
    assert Manifest.load(manifest.folder).digest() == manifest.digest()
    rows = [dict(row) for split in manifest.splits for row in manifest.rows(split)]
    rows[0]["shard_sha256"] = "0" * 64
    assert Manifest(manifest.folder, rows, manifest.description).digest() != manifest.digest()


def test_an_unprepared_dataset_names_the_command(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"found no manifest.parquet. Run `any2seg prepare"):
        Manifest.load(tmp_path)


@pytest.mark.parametrize("name", [MANIFEST, "dataset.json"])
def test_a_damaged_file_is_put_together_again(prepared: Prepared, name: str) -> None:
    config, workspace, manifest = prepared
    path = manifest.folder / name
    whole = path.read_bytes()
    path.write_bytes(whole[:30])
    with pytest.raises(DatasetError, match=r"cannot be read: .*any2seg prepare"):
        Manifest.load(manifest.folder)
    prepare(config, workspace, progress=False)
    assert path.read_bytes() == whole


def test_an_unknown_split_names_those_there_are(prepared: Prepared) -> None:
    with pytest.raises(DatasetError, match="no split 'test'; expected one of train, val"):
        prepared[2].shards("test")


def test_splits_keep_the_given_order_and_others_follow() -> None:
    rows = [
        {"split": split, "shard": shard, "row": row}
        for split in ("zoo", "val", "train", "old")
        for shard in (1, 0)
        for row in (1, 0)
    ]
    ordered = in_order(rows, ["train", "zoo", "val"])
    assert [r["split"] for r in ordered[::4]] == ["train", "zoo", "val", "old"]
    assert [(r["shard"], r["row"]) for r in ordered[:4]] == [(0, 0), (0, 1), (1, 0), (1, 1)]


def test_paths_of_a_shard(tmp_path: Path) -> None:
    tar = shard_path(tmp_path, "train", 3)
    assert tar == tmp_path / "shards/train/train-000003.tar"
    assert record_path(tar).name == "train-000003.parquet"
    assert refusals_path(tar).name == "train-000003.refused.parquet"
