"""Finding towers: local roots, single towers and hub snapshots, without a network."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from pipeline.errors import CheckpointError
from teacher.checkpoints.locate import find_text_tower, find_tower, towers_in

COMMIT = "0123456789abcdef0123456789abcdef01234567"


def test_a_root_holds_one_folder_a_tower(source: Path) -> None:
    depth, image = find_tower(str(source), "depth"), find_tower(str(source), "image")
    assert depth.directory.name == "LanguageBind_Depth"
    assert image.directory.name == "LanguageBind_Image"
    assert depth.revision is None
    assert find_tower(str(depth.directory), "depth").weights == depth.weights


def test_the_text_tower_is_the_images_else_the_first(goldens: Path, source: Path) -> None:
    assert find_text_tower(str(source)).directory.name == "LanguageBind_Image"
    assert find_text_tower(str(goldens)).directory.name == "LanguageBind_Depth"
    assert find_text_tower(str(source / "LanguageBind_Depth")).config.modality == "depth"


def test_safetensors_are_preferred(depth_dir: Path) -> None:
    (depth_dir / "pytorch_model.bin").write_bytes(b"x")
    assert find_tower(str(depth_dir), "depth").weights[0].name == "model.safetensors"
    (depth_dir / "model.safetensors").unlink()
    assert find_tower(str(depth_dir), "depth").weights[0].name == "pytorch_model.bin"


def test_what_is_missing_is_named(depth_dir: Path) -> None:
    root = depth_dir.parent
    with pytest.raises(CheckpointError, match="image tower; found towers: LanguageBind_Depth"):
        find_tower(str(root), "image")
    with pytest.raises(CheckpointError, match="expected the image tower, found the depth tower"):
        find_tower(str(depth_dir), "image")
    (depth_dir / "model.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"model\.safetensors, .* or pytorch_model\.bin"):
        find_tower(str(root), "depth")
    with pytest.raises(CheckpointError, match="expected 'languagebind-tiny', an existing dir"):
        find_tower(str(root / "nowhere"), "depth")


@pytest.fixture
def hub(tmp_path: Path, goldens: Path) -> Path:
    """A hub cache that holds one snapshot of LanguageBind/LanguageBind_Depth as main and as v1."""
    repo = tmp_path / "hub" / "models--LanguageBind--LanguageBind_Depth"
    shutil.copytree(goldens / "LanguageBind_Depth", repo / "snapshots" / COMMIT)
    (repo / "snapshots" / COMMIT / "tokenizer.json").write_text("{}")
    (repo / "refs").mkdir()
    for ref in ("main", "v1"):
        (repo / "refs" / ref).write_text(COMMIT)
    return tmp_path / "hub"


def offline(hub: Path, code: str) -> subprocess.CompletedProcess[str]:
    """Run `code` in a process that may not use the network."""
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HUB_CACHE": str(hub)}
    return subprocess.run(
        [sys.executable, "-c", f"from teacher.checkpoints.locate import *\n{code}"],
        env=environment,
        cwd=Path(__file__).parents[3],
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize(
    ("name", "revision"),
    [("LanguageBind", None), ("LanguageBind/LanguageBind_Depth", "v1"), ("LanguageBind", COMMIT)],
)
def test_a_cached_snapshot_serves_offline(hub: Path, name: str, revision: str | None) -> None:
    code = (
        f"files = find_tower({name!r}, 'depth', {revision!r})\n"
        "print(files.name, files.revision, files.weights[0].name, files.tokenizer_files()[0].name)"
    )
    done = offline(hub, code)
    expected = f"LanguageBind/LanguageBind_Depth {COMMIT} model.safetensors tokenizer.json"
    assert done.stdout.strip() == expected, done.stderr


def test_a_cached_pickle_serves_where_there_are_no_safetensors(hub: Path) -> None:
    snapshot = next(hub.rglob("model.safetensors")).parent
    (snapshot / "model.safetensors").rename(snapshot / "pytorch_model.bin")
    done = offline(hub, "print(find_tower('LanguageBind', 'depth').weights[0].name)")
    assert done.stdout.strip() == "pytorch_model.bin", done.stderr
    (snapshot / "pytorch_model.bin").unlink()
    done = offline(hub, "find_tower('LanguageBind', 'depth')")
    assert "expected model.safetensors or " in done.stderr
    assert "or pytorch_model.bin.index.json; found" in done.stderr


def test_cached_shards_serve_offline(hub: Path) -> None:
    snapshot = next(hub.rglob("model.safetensors")).parent
    tensors = load_file(snapshot / "model.safetensors")
    (snapshot / "model.safetensors").unlink()
    names = sorted(tensors)
    shards = {
        name: f"model-0000{1 + number % 2}-of-00002.safetensors"
        for number, name in enumerate(names)
    }
    for shard in set(shards.values()):
        save_file({n: tensors[n] for n in names if shards[n] == shard}, snapshot / shard)
    (snapshot / "model.safetensors.index.json").write_text(json.dumps({"weight_map": shards}))
    done = offline(hub, "print(*(p.name for p in find_tower('LanguageBind', 'depth').weights))")
    assert done.stdout.split() == sorted(set(shards.values())), done.stderr
    (snapshot / "model-00002-of-00002.safetensors").unlink()
    done = offline(hub, "find_tower('LanguageBind', 'depth')")
    assert "expected model-00002-of-00002.safetensors; found" in done.stderr


@pytest.mark.parametrize("level", ["", "snapshots", f"snapshots/{COMMIT}"])
def test_a_folder_of_the_hubs_cache_is_a_source(hub: Path, level: str) -> None:
    folder = hub / "models--LanguageBind--LanguageBind_Depth" / level
    files = find_tower(str(folder), "depth", "v1")
    assert (files.directory.name, files.revision) == (COMMIT, COMMIT)
    assert find_text_tower(str(folder)).directory == files.directory
    assert towers_in(str(folder)) == ("depth",)


def test_the_cache_itself_and_a_file_name_what_to_give(hub: Path, depth_dir: Path) -> None:
    with pytest.raises(CheckpointError, match="Give one of them: .*models--LanguageBind"):
        find_tower(str(hub), "depth")
    with pytest.raises(CheckpointError, match="expected the folder of a checkpoint, found a file"):
        find_tower(str(depth_dir / "model.safetensors"), "depth")
    with pytest.raises(CheckpointError, match="expected revision v7, found"):
        find_tower(str(hub / "models--LanguageBind--LanguageBind_Depth"), "depth", "v7")


@pytest.mark.parametrize(
    ("call", "message"),
    [
        ("find_tower('LanguageBind', 'thermal')", "hub repository LanguageBind/LanguageBind_The"),
        ("find_tower('LanguageBind', 'depth', 'v9')", "(revision v9): expected config.json"),
        (
            "find_tower('LanguageBind/LanguageBind_Depth', 'image')",
            "expected the image tower, found the depth tower",
        ),
    ],
)
def test_what_the_hub_cannot_give_is_named(hub: Path, call: str, message: str) -> None:
    done = offline(hub, call)
    assert "pipeline.errors.CheckpointError" in done.stderr
    assert message in done.stderr


def test_local_only_asks_no_hub(hub: Path) -> None:
    code = (
        "import socket\n"
        "def refuse(*_): raise AssertionError('the network was used')\n"
        "socket.socket.connect = refuse\n"
        "print(find_tower('LanguageBind', 'depth', local_only=True).revision)\n"
        "find_tower('LanguageBind', 'thermal', local_only=True)"
    )
    environment = {**os.environ, "HF_HUB_CACHE": str(hub)}
    environment.pop("HF_HUB_OFFLINE", None)
    done = subprocess.run(
        [sys.executable, "-c", f"from teacher.checkpoints.locate import *\n{code}"],
        env=environment,
        cwd=Path(__file__).parents[3],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout.strip() == COMMIT, done.stderr
    assert "CheckpointError: hub repository LanguageBind/LanguageBind_Thermal" in done.stderr
