"""Growth: whatever is added, removed, altered or refused between runs, shards stay as they are.

A random life of a source: between two `prepare` runs samples come, go, change or break. Shards and
records never change, no key is lost or doubled, the manifest is the union of the records, and what
the report says of the source is what happened to it.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from pipeline.config.config import Config
from pipeline.config.load import load_config
from pipeline.datasets.folder import FolderAdapter
from pipeline.formats.parquet import read_rows
from pipeline.formats.shard_tar import read_shard
from pipeline.shards.manifest import MANIFEST, Manifest, record_path
from pipeline.shards.prepare import prepare
from pipeline.workspace import Workspace

CONFIG = """
name = "growing"
[dataset]
adapter = "folder"
root = "./source"
classes = ["a", "b"]
[modalities.rgb]
[store]
shard_size = 3
[prepare]
workers = 1
max_refused = 1.0
"""
NAMES = 8
"""Names that a source may have; `0` is always there and good."""
Change = tuple[int, str]


def write(root: Path, name: int, value: int) -> None:
    for modality, shape in (("rgb", (4, 4, 3)), ("label", (4, 4))):
        path = root / modality / "train" / f"{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full(shape, value % 2, np.uint8)).save(path)
    # Values repeat; times tell writes apart even on a coarse clock.
    os.utime(root / f"rgb/train/{name}.png", ns=(value, 1_000 * value + name))


class Source:
    """The source, and what a run must find of it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.listed: dict[int, int | None] = {}
        """Name to the value of its images; None: they are broken."""
        self.taken: dict[int, int] = {}
        """Name to the value that its shard was made of."""
        self.clock = 2
        self.add(0)

    def add(self, name: int) -> None:
        if self.listed.get(name) is None:
            self.clock += 2
            write(self.root, name, self.clock)
            self.listed[name] = self.clock % 2

    def alter(self, name: int) -> None:
        value = self.listed.get(name)
        if value is not None:
            self.clock += 2
            self.clock += (self.clock + value + 1) % 2
            write(self.root, name, self.clock)
            self.listed[name] = self.clock % 2

    def touch(self, name: int) -> None:
        if name in self.listed:
            self.clock += 2
            os.utime(self.root / f"rgb/train/{name}.png", ns=(0, self.clock))

    def remove(self, name: int) -> None:
        if name and name in self.listed:
            for modality in ("rgb", "label"):
                (self.root / modality / "train" / f"{name}.png").unlink()
            del self.listed[name]

    def spoil(self, name: int) -> None:
        if name in self.listed and name:
            self.clock += 1
            (self.root / f"rgb/train/{name}.png").write_bytes(b"broken %d" % self.clock)
            self.listed[name] = None

    def settle(self) -> None:
        """What a run takes in: everything good that it has not."""
        good = {name: value for name, value in self.listed.items() if value is not None}
        self.taken = {**good, **self.taken}


@given(
    st.lists(
        st.lists(
            st.tuples(
                st.integers(0, NAMES - 1),
                st.sampled_from(["add", "add", "alter", "touch", "remove", "spoil"]),
            ),
            max_size=6,
        ),
        min_size=1,
        max_size=4,
    )
)
@settings(max_examples=25)
def test_random_changes_of_the_source_leave_shards_unchanged(
    tmp_path_factory, life: list[list[Change]]
) -> None:
    folder: Path = tmp_path_factory.mktemp("life")
    (folder / "c.toml").write_text(CONFIG)
    config = load_config(folder / "c.toml", [f"workspace={folder / 'ws'}"])
    source = Source(folder / "source")
    seen: dict[Path, tuple[int, bytes]] = {}
    for changes in life:
        for name, change in changes:
            getattr(source, change)(name)
        report = prepare(config, Workspace.of(config), progress=False)
        source.settle()
        seen = require_growth(Workspace.of(config).dataset(config), seen, source)  # type: ignore[arg-type]
        reported = report.details["source"]["train"]
        expected_altered = sum(
            name in source.listed and source.listed[name] != value
            for name, value in source.taken.items()
        )
        assert reported["altered"] == expected_altered
        assert reported["removed"] == len(source.taken.keys() - source.listed.keys())
        assert (reported["unknown"], reported["unreadable"]) == (0, 0)


def require_growth(
    folder: Path, seen: dict[Path, tuple[int, bytes]], source: Source
) -> dict[Path, tuple[int, bytes]]:
    """Old files are untouched, every key has one row, and the manifest is the records."""
    files = [path for path in sorted((folder / "shards").rglob("*")) if path.is_file()]
    now = {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in files}
    assert {path: now.get(path) for path in seen} == seen
    manifest = Manifest.load(folder)
    tars = [path for path in files if path.suffix == ".tar"]
    assert read_rows(folder / MANIFEST) == [
        row for tar in tars for row in read_rows(record_path(tar))
    ]
    keys = [key for shard in manifest.all_shards for key in shard.keys]
    assert sorted(keys) == sorted(f"train_{name}" for name in source.taken)
    for shard in manifest.all_shards:
        assert tuple(key for key, _ in read_shard(shard.path, shard.sha256)) == shard.keys
    return now


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Keys of the samples that are decoded."""
    keys: list[str] = []
    real = FolderAdapter.load

    def noted(adapter: FolderAdapter, sample) -> object:
        keys.append(sample.key)
        return real(adapter, sample)

    monkeypatch.setattr(FolderAdapter, "load", noted)
    return keys


def test_a_run_on_a_grown_source_reads_only_new_records(
    prepared: tuple[Config, Workspace, Manifest],
    make_source: Callable[..., Path],
    decoded: list[str],
) -> None:
    """The last shard of a split stays as it is, although it is not full."""
    config, workspace, manifest = prepared
    shards = {p: (p.stat().st_mtime_ns, p.read_bytes()) for p in manifest.folder.rglob("*-0*")}
    assert len(shards) == 8
    make_source(train=15, val=3)
    report = prepare(config, workspace, progress=False)
    assert report.done == 2
    assert decoded == [f"train_{n:03d}" for n in range(10, 15)]
    assert {p: (p.stat().st_mtime_ns, p.read_bytes()) for p in shards} == shards
    grown = Manifest.load(manifest.folder)
    assert [s.num_rows for s in grown.shards("train")] == [4, 4, 2, 4, 1]
    assert grown.all_shards[:3] == manifest.all_shards[:3]


def test_records_of_shards_in_the_manifest_are_not_read(
    prepared: tuple[Config, Workspace, Manifest], make_source: Callable[..., Path]
) -> None:
    """Only `verify` looks at records that the manifest has; `prepare` needs none of them."""
    config, workspace, manifest = prepared
    path = record_path(manifest.shards("train")[0].path)
    path.write_bytes(b"not Parquet")
    make_source(train=11, val=3)
    assert prepare(config, workspace, progress=False).done == 1
    assert Manifest.load(manifest.folder).num_samples == 14


def test_the_manifest_is_deleted_before_a_record_that_it_includes(
    prepared: tuple[Config, Workspace, Manifest],
    kill_at_step: Callable[[Callable[[], object], int], bool],
) -> None:
    """A kill while a deleted shard is rebuilt never leaves a manifest of the old one."""
    config, workspace, manifest = prepared
    whole = (manifest.folder / MANIFEST).read_bytes()
    step = 0
    while True:
        shard = manifest.shards("train")[1]
        shard.path.unlink(missing_ok=True)
        died = kill_at_step(lambda: prepare(config, workspace, progress=False), step)
        current = manifest.folder / MANIFEST
        if not record_path(shard.path).exists():
            assert not current.exists()
        prepare(config, workspace, progress=False)
        assert current.read_bytes() == whole
        if not died:
            break
        step += 1
    assert step > 8
