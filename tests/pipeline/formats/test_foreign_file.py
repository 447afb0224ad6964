"""What lies where a file of a known format was expected."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from pipeline.formats.foreign_file import file_form, file_problem


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (b"", "an empty file"),
        (b"version https://git-lfs.github.com/spec/v1\n", "a Git LFS pointer"),
        (b"\n <!DOCTYPE HTML>\n<html>", "an HTML page"),
        (b"<html lang='en'>", "an HTML page"),
    ],
)
def test_files_that_hold_no_data_are_named(tmp_path: Path, data: bytes, problem: str) -> None:
    (tmp_path / "x").write_bytes(data)
    assert str(file_problem(tmp_path / "x")).startswith(problem)


def test_places_that_hold_no_file_are_named(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("nothing")
    os.mkfifo(tmp_path / "pipe")
    assert file_problem(tmp_path) == "a folder"
    assert file_problem(tmp_path / "x") == "no such file"
    assert file_problem(tmp_path / "link") == "a link to nothing, which does not exist"
    assert file_problem(tmp_path / "pipe") == "a special file"


def test_the_form_is_read_from_the_first_bytes(tmp_path: Path) -> None:
    torch.save({}, tmp_path / "zip")
    save_file({"a": torch.ones(1)}, tmp_path / "safetensors")
    (tmp_path / "text").write_text("ä" * 5000, encoding="utf-8")
    (tmp_path / "cut").write_text(" " + "ä" * 5000, encoding="utf-8")
    (tmp_path / "binary").write_bytes(bytes(range(256)))
    forms = {path.name: file_form(path) for path in tmp_path.iterdir()}
    assert forms == {
        "zip": "a zip archive, torch.save's format",
        "safetensors": "a safetensors file",
        "text": "a text file",
        "cut": "a text file",
        "binary": None,
    }
    assert not any(file_problem(path) for path in tmp_path.iterdir())
