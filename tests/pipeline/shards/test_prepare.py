"""The stage: incremental, byte-identical after any kill, and bad samples quarantined by name."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipeline.config.config import Config
from pipeline.core.stage_report import StageReport
from pipeline.datasets.folder import FolderAdapter
from pipeline.errors import DatasetError, WorkspaceBusy
from pipeline.formats.shard_tar import read_shard
from pipeline.shards.manifest import QUARANTINE, Manifest, read_rows
from pipeline.shards.prepare import prepare
from pipeline.storage.lease import LOCK, locked
from pipeline.workspace import Workspace

Tree = Callable[[Path], dict[str, bytes]]
MakeConfig = Callable[..., Config]
MakeSource = Callable[..., Path]


def run(config: Config) -> StageReport:
    return prepare(config, Workspace.of(config), progress=False)


def folder(config: Config) -> Path:
    return Workspace.of(config).dataset(config)


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:50])


@pytest.fixture
def no_decoding(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Call it: from then on loading any sample fails."""

    def forbid(*args: object) -> None:
        raise AssertionError("a sample was decoded")

    return lambda: monkeypatch.setattr(FolderAdapter, "load", forbid)


def test_every_sample_is_in_a_shard_and_its_row_in_the_manifest(
    prepared: tuple[Config, Workspace, Manifest],
) -> None:
    config, _, manifest = prepared
    assert manifest.splits == ("train", "val")
    assert [s.num_rows for s in manifest.shards("train")] == [4, 4, 2]
    assert [s.num_rows for s in manifest.shards("val")] == [3]
    labels = Path(str(config.dataset.root)) / "label" / "train"  # type: ignore[attr-defined]
    expected = np.bincount(
        np.concatenate([np.asarray(Image.open(p)).ravel() for p in labels.iterdir()])
    )
    assert manifest.class_pixels("train").tolist() == expected[:3].tolist()
    assert sum(row["ignored_pixels"] for row in manifest.rows("train")) == expected[255]
    for shard in manifest.all_shards:
        assert tuple(key for key, _ in read_shard(shard.path, shard.sha256)) == shard.keys


def written_at(path: Path) -> dict[Path, int]:
    """When each file was last written; the lock names its holder while it is held."""
    return {p: p.stat().st_mtime_ns for p in path.rglob("*") if p.name != ".lock"}


def test_a_second_run_decodes_and_writes_nothing(
    prepared: tuple[Config, Workspace, Manifest], no_decoding: Callable[[], None], tree: Tree
) -> None:
    config, _, _ = prepared
    before = written_at(folder(config))
    no_decoding()
    report = run(config)
    assert (report.done, report.skipped, report.failed) == (0, 4, ())
    assert written_at(folder(config)) == before


def test_new_samples_are_appended_and_old_shards_stay(
    prepared: tuple[Config, Workspace, Manifest], make_source: MakeSource, tree: Tree
) -> None:
    config, _, old = prepared
    before = tree(folder(config) / "shards")
    make_source(train=13, val=3)
    report = run(config)
    assert (report.done, report.skipped) == (1, 4)
    after = tree(folder(config) / "shards")
    assert {name: after[name] for name in before} == before
    new = Manifest.load(folder(config))
    assert new.shards("train")[3].keys == ("train_010", "train_011", "train_012")
    assert new.digest() != old.digest()


def test_bad_samples_are_quarantined_and_retried_only_when_they_change(
    make_source: MakeSource, make_config: MakeConfig, no_decoding: Callable[[], None]
) -> None:
    root = make_source(train=10)
    good = (root / "rgb/train/003.png").read_bytes()
    truncate(root / "rgb/train/003.png")
    (root / "depth/train/005.png").unlink()
    config = make_config("prepare.max_refused=0.2")
    report = run(config)
    assert {f.unit for f in report.failed} == {"train_003", "train_005"}
    reasons = {r["key"]: r["reason"] for r in read_rows(folder(config) / QUARANTINE)}
    assert str(root / "rgb/train/003.png") in reasons["train_003"]
    assert "no depth" in reasons["train_005"]
    assert Manifest.load(folder(config)).num_samples == 8

    (root / "rgb/train/003.png").write_bytes(good)
    report = run(config)
    assert (report.done, [f.unit for f in report.failed]) == (1, ["train_005"])
    assert [r["key"] for r in read_rows(folder(config) / QUARANTINE)] == ["train_005"]
    shards = Manifest.load(folder(config)).shards("train")
    assert [s.num_rows for s in shards] == [3, 3, 2, 1]
    assert shards[3].keys == ("train_003",)

    no_decoding()
    assert run(config).done == 0


def test_a_chunk_of_only_bad_samples_leaves_a_gap(
    make_source: MakeSource, make_config: MakeConfig, no_decoding: Callable[[], None]
) -> None:
    root = make_source(train=10)
    for index in range(4, 8):
        truncate(root / f"label/train/{index:03d}.png")
    config = make_config("prepare.max_refused=0.5")
    run(config)
    assert [s.index for s in Manifest.load(folder(config)).shards("train")] == [0, 2]
    no_decoding()
    assert len(run(config).failed) == 4


def test_too_many_bad_samples_fail_the_stage_after_writing_the_quarantine(
    make_source: MakeSource, make_config: MakeConfig
) -> None:
    root = make_source(train=10, val=3)
    truncate(root / "rgb/train/003.png")
    config = make_config()
    for _ in range(2):
        with pytest.raises(DatasetError, match=r"1 of 10 samples refused.*train_003.*max_refused"):
            run(config)
    assert [r["key"] for r in read_rows(folder(config) / QUARANTINE)] == ["train_003"]
    run(make_config("prepare.max_refused=0.1"))
    assert Manifest.load(folder(config)).num_samples == 12


def test_a_split_without_a_good_sample_fails(
    make_source: MakeSource, make_config: MakeConfig
) -> None:
    root = make_source(train=2, val=1)
    truncate(root / "rgb/val/000.png")
    with pytest.raises(DatasetError, match="split 'val': every sample was refused"):
        run(make_config("prepare.max_refused=1.0"))


def test_one_process_and_several_write_the_same_bytes(
    make_source: MakeSource, make_config: MakeConfig, tree: Tree
) -> None:
    root = make_source(train=40)
    truncate(root / "rgb/train/011.png")
    one, two = make_config(workspace="one"), make_config("prepare.workers=2", workspace="two")
    run(one)
    run(two)
    assert tree(folder(one)) == tree(folder(two))


def test_a_deleted_shard_is_rebuilt_with_the_same_bytes(
    prepared: tuple[Config, Workspace, Manifest], tree: Tree
) -> None:
    config, _, manifest = prepared
    before = tree(folder(config))
    manifest.shards("train")[1].path.unlink()
    assert run(config).done == 1
    assert tree(folder(config)) == before


def test_leftovers_of_a_killed_writer_are_swept(
    prepared: tuple[Config, Workspace, Manifest], tree: Tree
) -> None:
    config, _, _ = prepared
    before = tree(folder(config))
    (folder(config) / "shards/train/train-000009.tar.77.partial").write_bytes(b"half")
    (folder(config) / "shards/train/train-000003.tar").write_bytes(b"no record: does not exist")
    run(config)
    (folder(config) / "shards/train/train-000003.tar").unlink()
    assert tree(folder(config)) == before


def test_a_second_writer_is_refused(prepared: tuple[Config, Workspace, Manifest]) -> None:
    config, _, _ = prepared
    with (
        locked(folder(config) / LOCK, wait=False),
        pytest.raises(WorkspaceBusy, match="another"),
    ):
        run(config)


@pytest.mark.slow
def test_a_kill_at_every_step_leaves_a_resumable_dataset(
    make_source: MakeSource,
    make_config: MakeConfig,
    kill_at_step: Callable[[Callable[[], object], int], bool],
    tree: Tree,
) -> None:
    """Also killed twice: the resuming run dies as well, a few steps on."""
    root = make_source(train=9, val=2)
    truncate(root / "rgb/train/001.png")
    for index in range(4, 8):
        truncate(root / f"depth/train/{index:03d}.png")
    options = ("prepare.max_refused=0.9", "store.shard_size=4")
    whole = make_config(*options, workspace="whole")
    run(whole)
    wanted = tree(folder(whole))
    step = 0
    while True:
        config = make_config(*options, workspace=f"killed{step}")
        if not kill_at_step(lambda config=config: run(config), step):
            break
        kill_at_step(lambda config=config: run(config), 5)
        run(config)
        assert tree(folder(config)) == wanted, f"killed at step {step}"
        step += 1
    assert step > 20


PREPARE = """
import sys
from pipeline.config.load import load_config
from pipeline.shards.prepare import prepare
from pipeline.workspace import Workspace

if __name__ == "__main__":
    config = load_config(sys.argv[1], sys.argv[2:])
    print("ready", flush=True)
    prepare(config, Workspace.of(config), progress=False)
"""


def start(script: Path, config: Path, workspace: str) -> subprocess.Popen[str]:
    options = ["prepare.workers=2", "prepare.max_refused=0.5"]
    options += [f"workspace={config.parent / workspace}"]
    process = subprocess.Popen(
        [sys.executable, str(script), str(config), *options],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])},
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


def children(process: subprocess.Popen[str]) -> list[Path]:
    """`/proc` entries of a process's workers."""
    listed = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    return [Path("/proc") / pid for pid in listed.read_text().split()] if listed.exists() else []


def wait_until_gone(processes: list[Path]) -> None:
    deadline = time.monotonic() + 30
    while any(process.exists() for process in processes):
        assert time.monotonic() < deadline, "a worker outlived its parent"
        time.sleep(0.05)


@pytest.mark.proof
def test_sigkill_at_random_moments_then_resume_is_byte_identical(
    make_source: MakeSource, make_config: MakeConfig, tree: Tree, tmp_path: Path
) -> None:
    root = make_source(train=80)
    truncate(root / "rgb/train/017.png")
    whole = make_config("prepare.max_refused=0.5", workspace="whole")
    script = tmp_path / "run_prepare.py"
    script.write_text(PREPARE)
    started = time.monotonic()
    run(whole)
    duration = 2.5 + 2 * (time.monotonic() - started)
    chance = random.Random(5)
    for _ in range(4):
        process = start(script, tmp_path / "small.toml", "killed")
        time.sleep(chance.uniform(0.0, duration))
        workers = children(process)
        process.send_signal(signal.SIGKILL)
        process.wait()
        wait_until_gone(workers)
        process.stdout.close()  # type: ignore[union-attr]
    process = start(script, tmp_path / "small.toml", "killed")
    process.communicate(timeout=120)
    assert process.returncode == 0
    killed = make_config("prepare.max_refused=0.5", workspace="killed")
    assert tree(folder(killed)) == tree(folder(whole))
