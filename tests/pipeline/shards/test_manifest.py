"""The manifest: rows, shards, digests, and errors that name the next command."""

from __future__ import annotations

from pathlib import Path

import pyarrow.parquet as pq
import pytest

from pipeline.config.config import Config
from pipeline.errors import DatasetError
from pipeline.formats.parquet import read_rows, read_table, write_rows
from pipeline.shards.manifest import (
    MANIFEST,
    MANIFEST_SCHEMA,
    Manifest,
    in_order,
    record_path,
    refusals_path,
    shard_path,
)
from pipeline.shards.prepare import prepare
from pipeline.workspace import Workspace

Prepared = tuple[Config, Workspace, Manifest]


def test_shards_have_the_keys_and_conditions_of_the_rows(prepared: Prepared) -> None:
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


def test_the_manifest_file_has_the_schema_and_merges_the_records(prepared: Prepared) -> None:
    _, _, manifest = prepared
    assert pq.read_schema(manifest.folder / MANIFEST).equals(MANIFEST_SCHEMA)
    tars = sorted((manifest.folder / "shards").glob("*/*.tar"))
    records = [row for tar in tars for row in read_rows(record_path(tar))]
    assert read_rows(manifest.folder / MANIFEST) == records  # `train` sorts before `val`
    assert [row for split in manifest.splits for row in manifest.rows(split)] == records


def test_the_digest_depends_on_content_alone(prepared: Prepared) -> None:
    _, _, manifest = prepared
    assert Manifest.load(manifest.folder).digest() == manifest.digest()
    rows = read_rows(manifest.folder / MANIFEST)
    for row in rows[:4]:
        row["shard_sha256"] = "0" * 64
    write_rows(manifest.folder / MANIFEST, rows, MANIFEST_SCHEMA)
    assert Manifest.load(manifest.folder).digest() != manifest.digest()


def test_an_unprepared_dataset_names_the_command(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"found no manifest.parquet. Run `any2seg prepare"):
        Manifest.load(tmp_path)


@pytest.mark.parametrize("name", [MANIFEST, "dataset.json"])
def test_a_damaged_manifest_is_rebuilt_from_the_records(prepared: Prepared, name: str) -> None:
    config, workspace, manifest = prepared
    path = manifest.folder / name
    whole = path.read_bytes()
    path.write_bytes(whole[:30])
    with pytest.raises(DatasetError, match=rf"{name}: cannot be read: .*any2seg prepare"):
        Manifest.load(manifest.folder)
    prepare(config, workspace, progress=False)
    assert path.read_bytes() == whole


def test_an_unknown_split_is_an_error_naming_the_splits(prepared: Prepared) -> None:
    with pytest.raises(DatasetError, match="no split 'test'; expected one of train, val"):
        prepared[2].shards("test")


def test_splits_keep_the_given_order_and_others_follow() -> None:
    shards = [(split, shard) for split in ("zoo", "val", "train", "old") for shard in (1, 0)]
    ordered = in_order(shards, ["train", "zoo", "val"])
    assert [split for split, _ in ordered[::2]] == ["train", "zoo", "val", "old"]
    assert [shard for _, shard in ordered] == [0, 1] * 4


def test_columns_are_those_of_the_rows(prepared: Prepared) -> None:
    _, _, manifest = prepared
    table = manifest.table("val", ("condition", "key"))
    assert table.column_names == ["condition", "key"]
    rows = manifest.rows("val")
    assert table.to_pylist() == [{n: row[n] for n in ("condition", "key")} for row in rows]
    assert manifest.rows("val", ("row",)) == [{"row": n} for n in range(3)]
    assert manifest.keys("val") == {row["key"] for row in rows}
    assert len(manifest.table()) == 13
    assert len(manifest.table("test")) == 0
    (span,) = [span for span in manifest.places if span.split == "val"]
    assert (span.start, span.stop, span.sha256) == (10, 13, rows[0]["shard_sha256"])
    assert manifest.reader().read(9, 12).equals(read_table(manifest.folder / MANIFEST).slice(9, 3))


def test_any_flipped_byte_of_the_rows_is_detected(prepared: Prepared) -> None:
    """Zstandard alone does not see every flip: pages carry checksums."""
    _, _, manifest = prepared
    path = manifest.folder / MANIFEST
    whole = path.read_bytes()
    column = pq.ParquetFile(path).metadata.row_group(0).column(5)
    start = column.dictionary_page_offset or column.data_page_offset
    seen = 0
    for offset in range(start + 40, start + column.total_compressed_size):
        data = bytearray(whole)
        data[offset] ^= 1
        path.write_bytes(data)
        try:
            heights = Manifest.load(manifest.folder).table(columns=("height",))
        except DatasetError as error:
            assert "Delete it and run `any2seg prepare CONFIG`" in str(error)  # noqa: PT017
            seen += 1
        else:
            assert heights["height"].to_pylist() == [12] * 13  # a field that nothing reads
    assert seen > 10


def test_a_newer_schema_is_refused_by_name(prepared: Prepared) -> None:
    folder = prepared[2].folder
    described = (folder / "dataset.json").read_text()
    (folder / "dataset.json").write_text(described.replace('"schema": 2', '"schema": 3', 1))
    with pytest.raises(DatasetError, match=r"schema 2 or older, found 3: a newer any2seg"):
        Manifest.load(folder)


def test_paths_of_a_shard(tmp_path: Path) -> None:
    tar = shard_path(tmp_path, "train", 3)
    assert tar == tmp_path / "shards/train/train-000003.tar"
    assert record_path(tar).name == "train-000003.parquet"
    assert refusals_path(tar).name == "train-000003.refused.parquet"
