"""Name what lies where a file of a known format was expected, for error messages. Reads 4 KiB at most."""

from __future__ import annotations

import os
from pathlib import Path

_HEAD_BYTES = 4096
_LFS = b"version https://git-lfs"
_HTML = (b"<!doctype html", b"<html", b"<head")
_ZIP = b"PK\x03\x04"
_HEADER_START = 8
"""A safetensors file has 8 bytes of length, then a JSON object."""


def file_problem(path: Path) -> str | None:
    """Why `path` holds no data of any binary or JSON format; None if it may.

    Absent, a directory, a dangling link, unreadable, empty, a Git LFS pointer, or an HTML page.
    """
    if not path.exists():
        return (
            f"a link to {os.readlink(path)}, which does not exist"
            if path.is_symlink()
            else "no such file"
        )
    if not path.is_file():
        return "a folder" if path.is_dir() else "a special file"
    try:
        head = _head(path)
    except OSError as error:
        return f"a file that cannot be read ({error.strerror or error})"
    if not head:
        return "an empty file"
    if head.startswith(_LFS):
        return "a Git LFS pointer (`git lfs pull` in its repository fetches the file itself)"
    if head.lstrip().lower().startswith(_HTML):
        return "an HTML page (the download gave a web page in place of the file)"
    return None


def file_form(path: Path) -> str | None:
    """The format that the first bytes of a readable file show; None if they show none."""
    head = _head(path)
    if head.startswith(_ZIP):
        return "a zip archive, torch.save's format"
    if head[_HEADER_START : _HEADER_START + 1] == b"{":
        return "a safetensors file"
    if _is_text(head):
        return "a text file"
    return None


def _head(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(_HEAD_BYTES)


def _is_text(head: bytes) -> bool:
    try:
        # Four bytes may be cut off the last character of a longer file.
        text = head.decode("utf-8", "strict" if len(head) < _HEAD_BYTES else "ignore")
    except UnicodeDecodeError:
        return False
    return all(char.isprintable() or char in "\t\n\r\f" for char in text)
