"""Damage in an object store: the commands see it by name, mend it to the very bytes, delete the unused."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.config.config import Config
from pipeline.config.load import dump_config
from pipeline.shards.manifest import Manifest
from pipeline.shards.prepare import prepare
from pipeline.storage.remote_path import RemotePath
from pipeline.targets.lookup import resolve
from pipeline.targets.store import TargetStore
from pipeline.workspace import Workspace
from teacher.encoding.precompute import precompute
from tests.faults.conftest import Files, files_of, moved
from tests.flows.cli.test_integrity import call

pytestmark = pytest.mark.server


def remote_files(root: RemotePath) -> Files:
    """As `files_of`: every object that a run must reproduce, by its name."""
    names = [name for name in root.entries() if not {"cost", "cache"} & set(name.split("/"))]
    return {name: (root / name).read_bytes() for name in names if not name.endswith(".lock")}


def flip_bit(path: RemotePath) -> None:
    """Change one bit of an object behind its writer's back, with its tags and so its claims kept."""
    found = path.read_tagged()
    data = bytearray(found.data)
    data[len(data) // 2] ^= 16
    path.write(bytes(data), found.tags)


def old_store(config: Config) -> RemotePath:
    """A store of other weights with one shard's numbers, which no index entry leads to."""
    workspace = Workspace.of(config)
    current = resolve(config, workspace, "rgb")
    provenance = current.provenance.model_copy(update={"tower": {"weights": "old"}})
    store = TargetStore.create(workspace.targets(config), provenance)
    [shard, *_] = Manifest.load(workspace.dataset(config)).all_shards
    assert store.commit(shard, {name: current.read(shard, name) for name in provenance.outputs}, {})
    assert isinstance(store.path, RemotePath)
    return store.path


def test_verify_and_repair_work_on_an_object_store(
    original: tuple[Config, Path], prefix: RemotePath, tmp_path: Path
) -> None:
    config = moved(original[0], prefix)
    workspace = Workspace.of(config)
    prepare(config, workspace, progress=False)
    precompute(config, workspace, progress=False)
    file = tmp_path / "small.toml"
    file.write_text(dump_config(config))
    whole = remote_files(prefix)
    assert whole == files_of(original[1] / "workspace")
    assert call("verify", str(file), "--deep")[0] == 0

    [rgb] = (prefix / "targets").glob("*/rgb-*")
    [nir] = (prefix / "targets").glob("*/nir-*")
    target = rgb / "targets.zarr/train/patch/c/1/0/0"
    record = nir / "ledger/train/train-000002.json"
    flip_bit(target)
    record.write(record.read_bytes()[:100])
    code, text = call("verify", str(file))
    assert (code, "1 findings" in text) == (1, True)
    code, text = call("verify", str(file), "--deep")
    assert (code, "2 findings" in text) == (1, True)
    assert f"{target}: numbers altered: expected object" in text
    assert f"{record}: record unreadable: cannot be read" in text

    code, text = call("repair", str(file))
    assert (code, "2 fixed, 0 left" in text) == (0, True), text
    assert call("verify", str(file), "--deep")[0] == 0
    assert remote_files(prefix) == whole

    old = old_store(config)
    code, text = call("gc", str(file))
    assert (code, "1 unused items" in text, f"targets/{rgb.parent.name}" in text) == (0, True, True)
    assert "Nothing was deleted" in text
    assert old.is_dir()
    assert "Deleted 1." in call("gc", str(file), "--delete")[1]
    assert not old.is_dir()
    assert remote_files(prefix) == whole
