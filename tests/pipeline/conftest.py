"""A small two-modality folder dataset of random pictures, and a prepared workspace of it."""

from __future__ import annotations

import itertools
import os
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, settings
from PIL import Image

from pipeline.config.config import Config
from pipeline.config.load import load_config
from pipeline.shards.manifest import Manifest
from pipeline.shards.prepare import prepare
from pipeline.workspace import Workspace

# A loaded machine must not fail a property.
settings.register_profile("project", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("project")

SIZE = (12, 10)
CONFIG = """
name = "small"
[dataset]
adapter = "folder"
root = "./source"
classes = ["soil", "crop", "weed"]
[modalities.rgb]
[modalities.depth]
[store]
shard_size = 4
[prepare]
workers = 1
"""


def write_sample(root: Path, split: str, stem: str, seed: int) -> None:
    """`rgb` (8-bit colour), `depth` (16-bit) and `label` (0..2 and 255) pictures of one sample."""
    rng = np.random.default_rng([7, seed])
    pictures = {
        "rgb": rng.integers(0, 256, (*SIZE, 3), dtype=np.uint8),
        "depth": rng.integers(0, 65536, SIZE, dtype=np.uint16),
        "label": rng.choice(np.array([0, 1, 2, 255], dtype=np.uint8), SIZE),
    }
    for name, array in pictures.items():
        path = root / name / split / f"{stem}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(array).save(path)


@pytest.fixture
def shared() -> Callable[[str], Path]:
    """`shared("data/...")`: a path among the shared trial data; skips where it is absent."""
    default = Path(__file__).parents[2].parent / "shared"
    root = Path(os.environ.get("ANY2SEG_SHARED", default))

    def find(name: str) -> Path:
        if not (root / name).exists():
            pytest.skip(f"no trial data {name}")
        return root / name

    return find


STEPS = ("fsync", "replace", "unlink")
KILLED = 9


def run_until_step(action: Callable[[], object], step: int) -> bool:
    """Run `action` in a child that dies, like one killed, at its `step`-th call that changes a disk.

    Returns whether it died there; False: the action was done before.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # 3.12 warns of fork beside threads
        child = os.fork()
    if child == 0:
        _die_at(step)
        status = 1
        try:
            action()
            status = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(status)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert status in (0, KILLED)
    return status == KILLED


def _die_at(step: int) -> None:
    counter = itertools.count()

    def dying(call: Callable[..., object]) -> Callable[..., object]:
        def wrapped(*args: object, **kwargs: object) -> object:
            if next(counter) == step:
                os._exit(KILLED)
            return call(*args, **kwargs)

        return wrapped

    for name in STEPS:
        setattr(os, name, dying(getattr(os, name)))


@pytest.fixture
def kill_at_step() -> Callable[[Callable[[], object], int], bool]:
    """`kill_at_step(action, n)`: see `run_until_step`."""
    return run_until_step


@pytest.fixture
def tree() -> Callable[[Path], dict[str, bytes]]:
    """`tree(folder)`: relative path to bytes of every file."""

    def read(folder: Path) -> dict[str, bytes]:
        return {
            str(p.relative_to(folder)): p.read_bytes()
            for p in sorted(folder.rglob("*"))
            if p.is_file()
        }

    return read


@pytest.fixture
def make_source(tmp_path: Path) -> Callable[..., Path]:
    """`make_source(train=10, val=3)` writes `tmp_path/source`; more calls add samples."""

    def make(**counts: int) -> Path:
        root = tmp_path / "source"
        for offset, (split, number) in enumerate(counts.items()):
            for index in range(number):
                write_sample(root, split, f"{index:03d}", 1000 * offset + index)
        return root

    return make


@pytest.fixture
def make_config(tmp_path: Path) -> Callable[..., Config]:
    """`make_config("store.shard_size=2", workspace="ws")`: the config of `tmp_path/source`.

    The workspace is a folder in `tmp_path` or a URL.
    """

    def make(*overrides: str, workspace: str = "ws") -> Config:
        path = tmp_path / "small.toml"
        path.write_text(CONFIG)
        where = workspace if ":/" in workspace else tmp_path / workspace
        return load_config(path, [*overrides, f"workspace={where}"])

    return make


@pytest.fixture
def prepared(
    make_source: Callable[..., Path], make_config: Callable[..., Config]
) -> tuple[Config, Workspace, Manifest]:
    """10 train and 3 val samples in shards of 4."""
    make_source(train=10, val=3)
    config = make_config()
    workspace = Workspace.of(config)
    prepare(config, workspace, progress=False)
    return config, workspace, Manifest.load(workspace.dataset(config))
