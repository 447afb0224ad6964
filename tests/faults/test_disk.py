"""A disk that is full in mid-write, and one that cannot be written: named errors, no half artefact."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from flows.integrity.finding import Kind
from flows.integrity.verify import verify
from pipeline.config.config import Config
from pipeline.errors import Any2SegError
from pipeline.shards.prepare import prepare
from pipeline.workspace import Workspace
from teacher.encoding.precompute import precompute
from tests.faults.conftest import files_of, moved

UNFINISHED = {
    Kind.HOLE,
    Kind.PARTIAL,
    Kind.LEDGER_MISSING,
    Kind.SHARD_LEFTOVER,
    Kind.MANIFEST_DIFFERS,
    Kind.MANIFEST_UNREADABLE,
    Kind.QUARANTINE_DIFFERS,
    Kind.ARRAY,
    Kind.PROVENANCE,
}
"""What an interrupted stage may leave; anything else would be damage."""


def mount(*arguments: str) -> None:
    done = subprocess.run(["mount", *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"may not mount: {done.stderr.strip()}")


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A small disk of its own; `mount -o remount` changes it."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount("-t", "tmpfs", "-o", "size=48m", "tmpfs", str(folder))
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def fill(disk: Path, leave_bytes: int) -> Path:
    """Take up the disk but for some bytes; returns the file to delete."""
    ballast = disk / "ballast"
    free = shutil.disk_usage(disk).free
    with ballast.open("wb") as file:
        file.write(b"\0" * (free - leave_bytes))
    return ballast


def kinds(config: Config) -> set[Kind]:
    found = verify(config, Workspace.of(config), deep=True, progress=False)
    return {finding.kind for finding in found.findings}


def test_prepare_on_a_full_disk(original: tuple[Config, Path], disk: Path) -> None:
    config = moved(original[0], disk / "ws")
    ballast = fill(disk, 60_000)
    with pytest.raises((OSError, Any2SegError)) as error:
        prepare(config, Workspace.of(config), progress=False)
    assert "space" in str(error.value)
    assert kinds(config) <= UNFINISHED
    ballast.unlink()
    prepare(config, Workspace.of(config), progress=False)
    assert kinds(config) == set()
    whole = files_of(original[1] / "workspace" / "datasets")
    assert files_of(disk / "ws" / "datasets") == whole


@pytest.mark.parametrize("leave_bytes", [6_000, 20_000, 50_000])
def test_precompute_on_a_full_disk(
    original: tuple[Config, Path], disk: Path, leave_bytes: int
) -> None:
    config = moved(original[0], disk / "ws")
    prepare(config, Workspace.of(config), progress=False)
    ballast = fill(disk, leave_bytes)
    with pytest.raises((OSError, Any2SegError)) as error:
        precompute(config, Workspace.of(config), progress=False)
    assert "space" in str(error.value)
    assert kinds(config) <= UNFINISHED
    ballast.unlink()
    precompute(config, Workspace.of(config), progress=False)
    assert kinds(config) == set()
    assert files_of(disk / "ws" / "targets") == files_of(original[1] / "workspace" / "targets")


def test_a_workspace_that_cannot_be_written(original: tuple[Config, Path], disk: Path) -> None:
    shutil.copytree(original[1] / "workspace", disk / "ws")
    config = moved(original[0], disk / "ws")
    before = files_of(disk / "ws")
    (disk / "ws" / "targets").rename(disk / "ws" / "kept")
    mount("-o", "remount,ro", str(disk))
    try:
        with pytest.raises((OSError, Any2SegError), match="[Rr]ead-only"):
            precompute(config, Workspace.of(config), progress=False)
        with pytest.raises((OSError, Any2SegError), match="[Rr]ead-only"):
            prepare(config, Workspace.of(config), progress=False)
        assert kinds(config) == set()  # examining only reads
    finally:
        mount("-o", "remount,rw", str(disk))
    (disk / "ws" / "kept").rename(disk / "ws" / "targets")
    assert files_of(disk / "ws") == before
