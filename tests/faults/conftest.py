"""A small finished workspace to damage: two random towers, three sensors, no training."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from flows.integrity.finding import Finding
from flows.integrity.repair import RepairReport, repair
from flows.integrity.verify import verify
from pipeline.config.config import Config
from pipeline.shards.prepare import prepare
from pipeline.workspace import Workspace
from teacher.encoding.precompute import precompute
from tests.teacher.conftest import make_config, write_pictures, write_source

Files = dict[str, bytes]


@dataclass(frozen=True)
class Made:
    """A workspace with everything in it, and what its files were."""

    config: Config
    whole: Files

    @property
    def workspace(self) -> Workspace:
        return Workspace.of(self.config)

    @property
    def dataset(self) -> Path:
        return Path(str(self.workspace.dataset(self.config)))

    @property
    def shards(self) -> Path:
        return self.dataset / "shards" / "train"

    def store(self, modality: str) -> Path:
        [path] = Path(str(self.workspace.targets(self.config))).glob(f"{modality}-*")
        return path

    def chunk(self, modality: str, output: str, shard: int) -> Path:
        tail = ["0"] * (1 if output == "embedding" else 2)
        return self.store(modality).joinpath(
            "targets.zarr", "train", output, "c", str(shard), *tail
        )

    def ledger(self, modality: str, shard: int) -> Path:
        return self.store(modality) / "ledger" / "train" / f"train-{shard:06d}.json"

    def files(self) -> Files:
        return files_of(Path(str(self.workspace.root)))

    def findings(self, *, deep: bool = True) -> tuple[Finding, ...]:
        return verify(self.config, self.workspace, deep=deep, progress=False).findings

    def repair(self, *, dry_run: bool = False) -> RepairReport:
        return repair(self.config, self.workspace, dry_run=dry_run, progress=False)

    def inodes(self) -> dict[str, tuple[int, int]]:
        """Inode of every file, and its time of change: a freed inode's number is given away again."""
        root = Path(str(self.workspace.root))
        stats = {name: (root / name).stat() for name in self.files()}
        return {name: (stat.st_ino, stat.st_mtime_ns) for name, stat in stats.items()}


def files_of(root: Path) -> Files:
    """Every file that a run must reproduce, by its path."""
    return {
        str(p.relative_to(root)): p.read_bytes()
        for p in sorted(root.rglob("*"))
        if p.is_file() and not {"cost", "cache"} & set(p.parts) and p.name != ".lock"
    }


def flip_bit(path: Path, at: float = 0.5, bit: int = 4) -> None:
    """Change one bit of a file, at a share of its length."""
    data = bytearray(path.read_bytes())
    data[min(int(at * len(data)), len(data) - 1)] ^= 1 << bit
    replace_bytes(path, bytes(data))


def truncate(path: Path, share: float = 0.6) -> None:
    """Cut a file."""
    data = path.read_bytes()
    replace_bytes(path, data[: int(share * len(data))])


def replace_bytes(path: Path, data: bytes) -> None:
    """Write over a file that may be linked elsewhere or write-protected."""
    path.unlink()
    path.write_bytes(data)


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def original(tmp_path_factory: pytest.TempPathFactory) -> tuple[Config, Path]:
    """A config whose workspace is finished, and the folder of its pictures; neither may be changed."""
    root = tmp_path_factory.mktemp("original")
    write_pictures(root / "pictures")
    config = make_config(root, write_source(root / "towers"))
    prepare(config, Workspace.of(config), progress=False)
    precompute(config, Workspace.of(config), progress=False)
    return config, root


def moved(config: Config, workspace: Path) -> Config:
    """The same config with another workspace."""
    data = config.model_dump(mode="json", exclude_none=True)
    return Config.model_validate({**data, "workspace": str(workspace)})


@pytest.fixture
def made(original: tuple[Config, Path], tmp_path: Path) -> Made:
    """A copy of the finished workspace."""
    config, root = original
    shutil.copytree(root / "workspace", tmp_path / "workspace")
    copy = moved(config, tmp_path / "workspace")
    return Made(copy, files_of(tmp_path / "workspace"))
