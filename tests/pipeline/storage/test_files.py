"""Durable files: nothing half-written is ever visible."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

import pytest

from pipeline.storage.files import (
    make_folder,
    read_json,
    sha256_file,
    sweep_partials,
    write_atomic,
    write_bytes,
    write_json,
)


def test_write_then_read(tmp_path: Path) -> None:
    path = tmp_path / "a/b/c.json"
    write_json(path, {"b": [1, 2.5], "a": None})
    assert path.read_text() == '{\n  "a": null,\n  "b": [\n    1,\n    2.5\n  ]\n}\n'
    assert read_json(path) == {"a": None, "b": [1, 2.5]}
    assert [p.name for p in path.parent.iterdir()] == ["c.json"]


def test_a_failing_writer_leaves_the_old_file_alone(tmp_path: Path) -> None:
    path = tmp_path / "x"
    write_bytes(path, b"old")

    def fail(file: BinaryIO) -> None:
        file.write(b"half of the new")
        raise RuntimeError

    with pytest.raises(RuntimeError):
        write_atomic(path, fail)
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == {"x": b"old"}


def test_a_kill_at_any_step_leaves_the_old_or_the_new_file(
    tmp_path: Path, kill_at_step: Callable[[Callable[[], object], int], bool]
) -> None:
    path = tmp_path / "x"
    path.write_bytes(b"old")
    step = 0
    while kill_at_step(lambda: write_bytes(path, b"new"), step):
        assert path.read_bytes() in (b"old", b"new")
        step += 1
    assert path.read_bytes() == b"new"
    sweep_partials(tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["x"]


def test_json_refuses_nan(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(tmp_path / "x", float("nan"))


def test_sha256_of_a_file(tmp_path: Path) -> None:
    data = bytes(range(256)) * 5000
    write_bytes(tmp_path / "x", data)
    assert sha256_file(tmp_path / "x") == hashlib.sha256(data).hexdigest()


def test_sweep_counts_partials_only(tmp_path: Path) -> None:
    make_folder(tmp_path / "deep/er")
    for name in ("a.1.partial", "deep/er/.ff.partial", "deep/keep"):
        (tmp_path / name).touch()
    assert sweep_partials(tmp_path) == 2
    assert sweep_partials(tmp_path / "none") == 0
    assert (tmp_path / "deep/keep").exists()
