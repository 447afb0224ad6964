"""The command where the locale is not UTF-8, and with `~` in its arguments."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from flows.cli.main import _with_home

ASCII = {"PYTHONUTF8": "0", "LC_ALL": "C", "PYTHONCOERCECLOCALE": "0"}
CONFIG = """name = "t"
workspace = "WORKSPACE"
modalities = { rgb = {} }
prepare = { workers = WORKERS }
[dataset]
adapter = "folder"
root = "./tiles"
classes = ["Straße", "木"]
"""


def any2seg(*words: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "flows.cli", *map(str, words)],
        env={**os.environ, **environment},
        capture_output=True,
        encoding="utf-8",
        check=False,
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for split in ("train", "val"):
        for name, array in (
            ("rgb", np.zeros((8, 8, 3), np.uint8)),
            ("label", np.zeros((8, 8), np.uint8)),
        ):
            path = tmp_path / "tiles" / name / split / "Übung 二.png"
            path.parent.mkdir(parents=True)
            Image.fromarray(array).save(path)
    return tmp_path


def prepared(
    folder: Path, workspace: str, workers: int = 1, **environment: str
) -> dict[str, bytes]:
    config = folder / f"{workspace}.toml"
    text = CONFIG.replace("WORKSPACE", f"./{workspace}").replace("WORKERS", str(workers))
    config.write_text(text, encoding="utf-8")
    done = any2seg("prepare", config, **environment)
    assert done.returncode == 0, done.stderr
    (dataset,) = (folder / workspace / "datasets").iterdir()
    files = (p for p in sorted(dataset.rglob("*")) if p.is_file() and p.suffix in (".tar", ".json"))
    (manifest,) = dataset.glob("manifest.parquet")
    assert pq.read_table(manifest)["key"].to_pylist() == [
        "train_u00dcbung_u4e8c",
        "val_u00dcbung_u4e8c",
    ]
    return {str(path.relative_to(dataset)): path.read_bytes() for path in files}


def test_the_locale_changes_no_byte(folder: Path) -> None:
    assert prepared(folder, "c", 2, **ASCII) == prepared(folder, "utf8", PYTHONUTF8="1")


def test_messages_name_files_in_any_locale(folder: Path) -> None:
    bad = folder / "tiles/rgb/train/Übung 二.png"
    bad.write_bytes(b"no image")
    config = folder / "c.toml"
    config.write_text(CONFIG.replace("WORKSPACE", "./w").replace("WORKERS", "1"), encoding="utf-8")
    done = any2seg("prepare", config, **ASCII)
    assert done.returncode == 1
    assert "Übung 二.png" in done.stderr
    assert "Traceback" not in done.stderr


def test_home_in_arguments(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    given = ["~/c.toml", "--sheet=~/s.png", "-o=~/out", "a~/b", "--set", "workspace=~/ws", "x=~/y"]
    assert [*map(_with_home, given)] == [
        *("/home/me/c.toml", "--sheet=/home/me/s.png", "-o=/home/me/out"),
        # An override is expanded by the config, which knows paths from text.
        *("a~/b", "--set", "workspace=~/ws", "x=~/y"),
    ]
