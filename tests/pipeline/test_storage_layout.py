"""storage_layout.md is exact: its reader works, and its tables are the schemas."""

from __future__ import annotations

import ast
import hashlib
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from pipeline import schemas
from pipeline.config.config import Config
from pipeline.formats.shard_tar import read_shard
from pipeline.shards.manifest import MANIFEST_SCHEMA, QUARANTINE_SCHEMA, Manifest
from pipeline.shards.source_index import INDEX_SCHEMA
from pipeline.targets.prompts import PromptStore
from pipeline.targets.provenance import TargetProvenance
from pipeline.targets.store import TargetStore
from pipeline.targets.views import ViewConfig, cut, draw_boxes, view_identity, view_shapes
from pipeline.workspace import Workspace

from .conftest import SIZE

PAGE = (Path(__file__).parents[2] / "storage_layout.md").read_text()
(CODE,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
DIM, PATCHES = 5, 3
Read = Callable[..., Iterator[tuple[str, dict[str, bytes], np.ndarray]]]


@pytest.fixture
def store(prepared: tuple[Config, Workspace, Manifest]) -> TargetStore:
    config, workspace, manifest = prepared
    store = TargetStore.create(
        workspace.targets(config),
        TargetProvenance(
            modality="rgb",
            teacher="t",
            spec={},
            tower={},
            outputs={"embedding": (DIM,), "patch": (PATCHES, DIM)},
            shard_size=config.store.shard_size,
        ),
    )
    for shard in manifest.all_shards:
        store.commit(shard, numbers(shard.keys), {})
    return store


def numbers(keys: tuple[str, ...]) -> dict[str, np.ndarray]:
    patch = np.stack(
        [np.random.default_rng([*key.encode()]).random((PATCHES, DIM)) for key in keys]
    ).astype(np.float16)
    return {"embedding": patch[:, 0], "patch": patch}


@pytest.fixture
def read() -> Read:
    scope: dict[str, Read] = {}
    exec(compile(CODE, "storage_layout.md", "exec"), scope)
    return scope["read"]


def test_the_documented_reader_is_short_and_imports_none_of_our_code() -> None:
    assert len(CODE.splitlines()) <= 26
    names = {
        alias.name.split(".")[0]
        for node in ast.walk(ast.parse(CODE))
        if isinstance(node, ast.Import)
        for alias in node.names
    }
    assert names == {"hashlib", "json", "pathlib", "tarfile", "pyarrow", "zarr"}
    assert "from " not in re.sub(r"yield from", "", CODE)


def test_the_documented_reader_reads_a_workspace(
    prepared: tuple[Config, Workspace, Manifest], store: TargetStore, read: Read
) -> None:
    manifest = prepared[2]
    for split in ("train", "val"):
        for output in ("embedding", "patch"):
            found = list(read(manifest.folder, store.path, split, output))
            expected = [s for i in manifest.shards(split) for s in read_shard(i.path, i.sha256)]
            assert [(key, members) for key, members, _ in found] == expected
            for key, _, row in found:
                np.testing.assert_array_equal(row, numbers((key,))[output][0])


def test_the_documented_reader_refuses_a_stale_record(
    prepared: tuple[Config, Workspace, Manifest], store: TargetStore, read: Read
) -> None:
    record = store.path / "ledger/train/train-000001.json"
    record.write_text(json.dumps({**json.loads(record.read_text()), "shard_sha256": "0"}))
    with pytest.raises(ValueError, match="disagree"):
        list(read(prepared[2].folder, store.path, "train"))


def test_the_documented_reader_refuses_an_object_with_another_digest(
    prepared: tuple[Config, Workspace, Manifest], store: TargetStore, read: Read
) -> None:
    own, other = (store.array("train", "embedding").object_path(n) for n in (0, 1))
    own.write_bytes(other.read_bytes())
    with pytest.raises(ValueError, match="disagree"):
        list(read(prepared[2].folder, store.path, "train"))


def test_views_follow_the_documented_formula(
    prepared: tuple[Config, Workspace, Manifest], read: Read
) -> None:
    config, workspace, manifest = prepared
    views = ViewConfig(3, 9, (0.4, 0.8))
    store = TargetStore.create(
        workspace.targets(config),
        TargetProvenance(
            modality="rgb",
            teacher="t",
            spec={},
            tower=view_identity(views),
            outputs=view_shapes({"embedding": (DIM,), "patch": (PATCHES, DIM)}, views),
            shard_size=config.store.shard_size,
        ),
    )
    for shard in manifest.all_shards:
        rows = {name: np.stack([array] * 3, axis=1) for name, array in numbers(shard.keys).items()}
        boxes = np.stack([draw_boxes(key, *SIZE, views) for key in shard.keys])
        store.commit(shard, {**rows, "view_box": boxes}, {})
    for output in ("embedding", "patch"):
        for key, _, row in read(manifest.folder, store.path, "train", output):
            np.testing.assert_array_equal(row[1], numbers((key,))[output][0])
    for key, _, boxes in read(manifest.folder, store.path, "train", "view_box"):
        picture = np.arange(SIZE[0] * SIZE[1]).reshape(SIZE)
        for view, box in enumerate(boxes):
            np.testing.assert_array_equal(box, drawn_as_the_page_says(key, view, views))
            top, left, height, width = (
                int(np.floor(np.float64(share) * pixels + 0.5))
                for share, pixels in zip(box[:4], (*SIZE, *SIZE), strict=True)
            )
            shown = picture[top : top + height, left : left + width]
            np.testing.assert_array_equal(shown[:, ::-1] if box[4] else shown, cut(picture, box))


def drawn_as_the_page_says(key: str, view: int, views: ViewConfig) -> np.ndarray:
    words = np.frombuffer(hashlib.sha256(key.encode()).digest()[:16], "<u8")
    philox = np.random.Philox(key=words, counter=[0, 0, view, views.seed])
    u = [float(word >> np.uint64(11)) * 2.0**-53 for word in philox.random_raw(4)]
    least, largest = views.scale
    side = max(1, int((least + u[0] * (largest - least)) * min(SIZE) + 0.5))
    top, left = int(u[1] * (SIZE[0] - side + 1)), int(u[2] * (SIZE[1] - side + 1))
    shares = (top / SIZE[0], left / SIZE[1], side / SIZE[0], side / SIZE[1], u[3] < 0.5)
    return np.array(shares, np.float32)


def test_the_documented_manifest_columns_are_the_schema() -> None:
    table = re.findall(r"^\| `(\w+)` \| (\S.*?) \|", PAGE.split("one row a sample:")[1], re.M)
    documented = dict(table[: len(MANIFEST_SCHEMA)])
    assert documented == {
        field.name: str(field.type).replace("list<item:", "list<element:")
        for field in MANIFEST_SCHEMA
    }


def test_every_field_of_every_record_is_documented(
    prepared: tuple[Config, Workspace, Manifest], store: TargetStore
) -> None:
    _, workspace, manifest = prepared
    prompts = PromptStore.create(workspace.prompts, "t", {}, np.ones((3, 2)), np.ones((3, 1, 2)))
    meta = next(read_shard(manifest.all_shards[0].path, manifest.all_shards[0].sha256))[1]
    records = [
        manifest.description,
        json.loads(meta["meta.json"]),
        json.loads((store.path / "provenance.json").read_text()),
        json.loads((store.path / "ledger/train/train-000000.json").read_text()),
        prompts.described,
        dict.fromkeys(QUARANTINE_SCHEMA.names),
    ]
    missing = {name for record in records for name in record if f"`{name}`" not in PAGE}
    assert missing == set()
    assert f"`schema` ({schemas.DATASET_SCHEMA})" in PAGE
    assert all(f"`{name}`" in PAGE for name in INDEX_SCHEMA.names)


VERSIONS = {
    "`dataset.json` (with manifest and shard records)": "DATASET_SCHEMA",
    "`dataset.json`": "DATASET_IDENTITY_SCHEMA",
    "`provenance.json` of targets without `patch`": "STORE_SCHEMA",
    "`provenance.json` of targets with `patch`": "STORE_WITH_PATCH_SCHEMA",
    "ledger record": "LEDGER_SCHEMA",
    "`provenance.json` of prompts": "PROMPTS_SCHEMA",
    "`run.json`": "RUN_SCHEMA",
    "state of a checkpoint": "CHECKPOINT_SCHEMA",
    "`evaluation.json`": "EVALUATION_SCHEMA",
    "`report.json`": "REPORT_SCHEMA",
    "`config.json` of an exported student": "SEGMENTER_SCHEMA",
    "audit": "AUDIT_SCHEMA",
}
"""First column of the page's table to the name in `pipeline.schemas`."""
READ = {
    "DATASET_SCHEMA": schemas.READABLE_DATASETS,
    "CHECKPOINT_SCHEMA": schemas.READABLE_CHECKPOINTS,
}


def test_the_documented_versions_are_those_of_the_schemas_module() -> None:
    section = PAGE.split("## Versions")[1].split("\n## ")[0]
    table = re.findall(r"^\| (\S.*?) \| `[\w.]+` \| (\d+) \| ([\d, ]+) \|", section, re.M)
    numbers = {name: value for name, value in vars(schemas).items() if name.endswith("_SCHEMA")}
    assert {VERSIONS[file]: int(written) for file, written, _ in table} == numbers
    for file, written, read in table:
        readable = READ.get(VERSIONS[file], (int(written),))
        assert tuple(map(int, read.split(","))) == readable


def test_no_other_module_defines_a_schema_version() -> None:
    root = Path(__file__).parents[2]
    rooms = ("pipeline", "teacher", "student", "flows")
    text = {p: p.read_text() for room in rooms for p in (root / room).rglob("*.py")}
    number = re.compile(r"^ *\w*SCHEMA\w* = \d|[\"']schema(_version)?[\"']: \d", re.M)
    assert [p.name for p, source in text.items() if number.search(source)] == ["schemas.py"]
