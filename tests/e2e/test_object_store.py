"""The whole pipeline on a workspace in an object store: the same bytes as on disk, also while
requests fail and after a kill."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

from flows.planning.status import status_rows
from flows.stages import load_stage
from pipeline.config.config import Config
from pipeline.config.load import load_config
from pipeline.storage.files import AnyPath
from pipeline.storage.remote_path import RemotePath
from pipeline.workspace import Workspace
from tests.e2e.conftest import command, environment
from tests.support.object_server import ObjectServer

pytestmark = [pytest.mark.slow, pytest.mark.server]

CONFIG = """
name = "small"
workspace = "{workspace}"
dataset = {{ adapter = "synthetic", num_train = 8, num_val = 2, num_test = 4, size_px = 64 }}
modalities = {{ rgb = {{}}, depth = {{}} }}
store = {{ shard_size = 4, cache_dir = "{cache}" }}
prepare = {{ workers = 1 }}
student = {{ backbone = "test_efficientnet", weights = "none", head_channels = 16 }}
train = {{ steps = 3, batch_size = 2, checkpoint_every = 1, warmup_steps = 1, threads = 1, device = "cpu" }}
evaluate = {{ split = "test", batch_size = 4, num_pictures = 1 }}
"""
RUN = ("prepare", "precompute", "train", "evaluate", "report")
KINDS = (
    "dataset.json",
    "manifest.parquet",
    "train-000000.tar",
    "train-000000.parquet",
    "targets.zarr/train/embedding/c/0/0",
    "ledger/train/train-000000.json",
    "prompts.zarr/class_embedding",
    "index/",
    "config.toml",
    "last.safetensors",
    "last.json",
    "metrics.parquet",
    "evaluation.json",
    "label.png",
    "report/index.html",
)


def configured(folder: Path, workspace: object) -> tuple[Path, Config]:
    path = folder / "small.toml"
    path.write_text(CONFIG.format(workspace=workspace, cache=folder / "copies"))
    return path, load_config(path)


def run(config: Config) -> dict[str, int]:
    """Units done by each stage."""
    workspace = Workspace.of(config)
    return {name: load_stage(name)(config, workspace).done for name in RUN}


def contents(root: AnyPath) -> dict[str, bytes]:
    """Every file, by its name from `root` on."""
    if isinstance(root, RemotePath):
        return {name: (root / name).read_bytes() for name in root.entries()}
    return {p.relative_to(root).as_posix(): p.read_bytes() for p in root.rglob("*") if p.is_file()}


def comparable(files: dict[str, bytes]) -> dict[str, bytes]:
    """Without locks, weight digests and what holds times or the workspace's own name."""
    skipped = ("cache/", "runs/")
    return {
        name: data
        for name, data in files.items()
        if not (name.startswith(skipped) or "/cost/" in name or name.endswith(".lock"))
    }


@pytest.fixture(scope="session")
def on_disk(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """What an uninterrupted run on disk writes."""
    folder = tmp_path_factory.mktemp("on_disk")
    _, config = configured(folder, folder / "workspace")
    run(config)
    return contents(folder / "workspace")


@pytest.mark.parametrize("fail", [0.0, 0.05])
def test_the_same_as_on_disk(
    prefix: RemotePath,
    object_server: ObjectServer,
    tmp_path: Path,
    on_disk: dict[str, bytes],
    fail: float,
) -> None:
    _, config = configured(tmp_path, prefix)
    object_server.fail_from(11, fail)
    assert all(run(config).values())
    assert set(run(config).values()) == {0}
    assert all(row.complete for row in status_rows(config, Workspace.of(config)))
    object_server.fail_from(0, 0.0)
    found = contents(prefix)
    assert comparable(found) == comparable(on_disk)
    # TensorBoard writes to local folders only, and none to an object store.
    on_both = {n for n in on_disk if n.startswith("runs/") and "/tensorboard/" not in n}
    assert {name for name in found if name.startswith("runs/")} == on_both
    for kind in KINDS:
        assert any(kind in name for name in found), kind
    if fail:
        assert sum(object_server.requests[kind] for kind in ("500", "503", "cut", "lost")) > 10


@pytest.mark.proof
def test_loader_processes_read_from_the_store(prefix: RemotePath, tmp_path: Path) -> None:
    _, config = configured(tmp_path, prefix)
    config = config.model_copy(update={"train": config.train.model_copy(update={"workers": 1})})
    workspace = Workspace.of(config)
    assert [load_stage(name)(config, workspace).done > 0 for name in RUN[:4]] == [True] * 4


@pytest.mark.proof
def test_a_killed_pass_goes_on_with_the_same_bytes(
    prefix: RemotePath, tmp_path: Path, on_disk: dict[str, bytes]
) -> None:
    path, config = configured(tmp_path, prefix)
    workspace = Workspace.of(config)
    load_stage("prepare")(config, workspace)
    process = subprocess.Popen(
        command("precompute", str(path)),
        env={**environment(tmp_path), **os.environ},
        start_new_session=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    deadline = time.monotonic() + 300
    while not any("/ledger/" in name for name in (prefix / "targets").entries()):
        assert process.poll() is None
        assert time.monotonic() < deadline
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    report = load_stage("precompute")(config, workspace)
    assert report.skipped >= 1
    ours = comparable(contents(prefix))
    kept = {name for name in comparable(on_disk) if name.startswith(("datasets", "targets"))}
    assert {name: ours[name] for name in kept} == {name: on_disk[name] for name in kept}
