"""A workspace is read by other people's tools as they are: no code of ours, no plug-in."""

from __future__ import annotations

import gc
import json
import tarfile
from pathlib import Path

import duckdb
import numpy as np
import pandas as pd
import pytest
import webdataset as wds
import xarray as xr
import zarr

from pipeline.config.config import Config
from pipeline.formats.shard_tar import read_shard
from pipeline.shards.manifest import MANIFEST, Manifest
from pipeline.targets.provenance import TargetProvenance
from pipeline.targets.store import TargetStore
from pipeline.targets.views import ViewConfig, draw_boxes, view_identity, view_shapes
from pipeline.workspace import Workspace

Prepared = tuple[Config, Workspace, Manifest]
DIM, PATCHES, VIEWS = 5, 3, 2


@pytest.fixture(params=[False, True], ids=["whole", "views"])
def store(prepared: Prepared, request: pytest.FixtureRequest) -> TargetStore:
    """A target store of either kind, numbers by key."""
    config, workspace, manifest = prepared
    settings = ViewConfig(VIEWS, 0, (0.5, 1.0)) if request.param else None
    outputs = view_shapes({"embedding": (DIM,), "patch": (PATCHES, DIM)}, settings)
    store = TargetStore.create(
        workspace.targets(config),
        TargetProvenance(
            modality="rgb",
            teacher="t",
            spec={},
            tower=view_identity(settings),
            outputs=outputs,
            shard_size=config.store.shard_size,
        ),
    )
    for shard in manifest.all_shards:
        arrays = {
            name: np.stack([number(key, name, shape) for key in shard.keys])
            for name, shape in outputs.items()
        }
        if settings is not None:
            arrays["view_box"] = np.stack([draw_boxes(k, 12, 10, settings) for k in shard.keys])
        store.commit(shard, arrays, {})
    return store


def number(key: str, name: str, shape: tuple[int, ...]) -> np.ndarray:
    """Numbers that only this sample's output has."""
    rng = np.random.default_rng([*f"{key} {name}".encode()])
    return rng.random(shape).astype(np.float16)


def test_tarfile_and_pandas_find_a_member_where_the_manifest_says(prepared: Prepared) -> None:
    manifest = prepared[2]
    table = pd.read_parquet(manifest.folder / MANIFEST)
    assert len(table) == 13
    found = 0
    for row in table.itertuples():
        path = manifest.folder / f"shards/{row.split}/{row.split}-{row.shard:06d}.tar"
        with tarfile.open(path) as tar, path.open("rb") as file:
            for member in row.members:
                info = tar.getmember(f"{row.key}.{member['name']}")
                assert (info.offset_data, info.size) == (member["offset"], member["num_bytes"])
                file.seek(member["offset"])
                assert file.read(info.size) == tar.extractfile(info).read()  # type: ignore[union-attr]
                found += 1
    assert found == 13 * 4


@pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")  # webdataset's own
def test_webdataset_streams_the_same_samples(prepared: Prepared) -> None:
    manifest = prepared[2]
    shards = manifest.shards("train")
    dataset = wds.WebDataset([str(s.path) for s in shards], shardshuffle=False)
    found = {s["__key__"]: {k: v for k, v in s.items() if not k.startswith("__")} for s in dataset}
    del dataset
    gc.collect()
    expected = {k: m for s in shards for k, m in read_shard(s.path, s.sha256)}
    assert found == expected
    assert json.loads(found[shards[0].keys[0]]["meta.json"])["split"] == "train"


def test_duckdb_counts_class_pixels_and_conditions(prepared: Prepared) -> None:
    manifest = prepared[2]
    path = manifest.folder / MANIFEST
    rows = duckdb.sql(
        f"select split, count(*), count(distinct shard), sum(class_pixels[1])::bigint "
        f"from '{path}' group by split order by split"
    ).fetchall()
    expected = [
        (s, len(manifest.rows(s)), len(manifest.shards(s)), int(manifest.class_pixels(s)[0]))
        for s in ("train", "val")
    ]
    assert rows == expected
    ((num_bytes,),) = duckdb.sql(
        f"select sum(m.num_bytes)::bigint from (select unnest(members) as m from '{path}')"
    ).fetchall()
    listed = [m for s in ("train", "val") for r in manifest.rows(s) for m in r["members"]]
    assert num_bytes == sum(member["num_bytes"] for member in listed)


def test_zarr_reads_rows_where_the_manifest_says(prepared: Prepared, store: TargetStore) -> None:
    manifest, size = prepared[2], store.provenance.shard_size
    group = zarr.open_group(store.path / "targets.zarr", mode="r")
    for split in ("train", "val"):
        for row in manifest.rows(split):
            for name, shape in store.provenance.outputs.items():
                if name != "view_box":
                    found = group[f"{split}/{name}"][row["shard"] * size + row["row"]]
                    np.testing.assert_array_equal(found, number(row["key"], name, shape))


@pytest.mark.filterwarnings("ignore::zarr.errors.ZarrUserWarning")
def test_xarray_opens_a_split_with_named_dimensions(prepared: Prepared, store: TargetStore) -> None:
    manifest, size = prepared[2], store.provenance.shard_size
    views = "view_box" in store.provenance.outputs
    opened = xr.open_zarr(
        store.path / "targets.zarr", group="train", consolidated=False, chunks=None
    )
    assert opened.embedding.dims == ("row", *(["view"] if views else []), "dim")
    assert opened.patch.dims == ("row", *(["view"] if views else []), "cell", "dim")
    assert set(opened.data_vars) == set(store.provenance.outputs)
    places = [row["shard"] * size + row["row"] for row in manifest.rows("train")]
    chosen = opened.embedding.isel(row=places)
    expected = [
        number(row["key"], "embedding", store.provenance.outputs["embedding"])
        for row in manifest.rows("train")
    ]
    np.testing.assert_array_equal(chosen.values, np.stack(expected))
    assert int(opened.embedding.isnull().any("dim").sum()) == (VIEWS if views else 1) * 2


def test_json_says_what_the_numbers_are(prepared: Prepared, store: TargetStore) -> None:
    described = json.loads((store.path / "provenance.json").read_text())
    assert described["outputs"]["embedding"][-1] == DIM
    record = next(Path(store.path / "ledger/train").glob("*.json"))
    shards = {shard.sha256 for shard in prepared[2].all_shards}
    assert json.loads(record.read_text())["shard_sha256"] in shards
