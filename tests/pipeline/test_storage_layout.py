"""storage_layout.md is exact: its reader works, and its tables are the schemas."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from pipeline.config import Config
from pipeline.manifest import MANIFEST_SCHEMA, QUARANTINE_SCHEMA, Manifest
from pipeline.prompts_store import PromptStore
from pipeline.shards import read_shard
from pipeline.targets import TargetProvenance, TargetStore
from pipeline.workspace import SCHEMA_VERSION, Workspace

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


def test_the_reader_is_short_and_stands_alone() -> None:
    assert len(CODE.splitlines()) <= 26
    names = {
        alias.name.split(".")[0]
        for node in ast.walk(ast.parse(CODE))
        if isinstance(node, ast.Import)
        for alias in node.names
    }
    assert names == {"hashlib", "json", "pathlib", "tarfile", "pyarrow", "zarr"}
    assert "from " not in re.sub(r"yield from", "", CODE)


def test_a_stranger_reads_what_we_wrote(
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


def test_a_stranger_sees_a_stale_record(
    prepared: tuple[Config, Workspace, Manifest], store: TargetStore, read: Read
) -> None:
    record = store.path / "ledger/train/train-000001.json"
    record.write_text(json.dumps({**json.loads(record.read_text()), "shard_sha256": "0"}))
    with pytest.raises(ValueError, match="disagree"):
        list(read(prepared[2].folder, store.path, "train"))


def test_the_manifest_table_is_the_schema() -> None:
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
    assert f"schema version {SCHEMA_VERSION}" in PAGE
