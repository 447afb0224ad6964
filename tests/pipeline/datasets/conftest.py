"""Files that Pillow reads but cannot write, and the roots that break path handling."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

HOSTILE_ROOTS = ("img", "img_rgb_sun", "a b", "grüße_дерево", "_depth[1]", "night{split}*")
"""Names of folders that text replacement, globs or word searches would stumble over."""


@pytest.fixture(params=HOSTILE_ROOTS)
def hostile_root(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    root: Path = tmp_path / request.param / "img" / "data_rgb"
    root.mkdir(parents=True)
    return root


@pytest.fixture
def save() -> Callable[[Path, np.ndarray], Path]:
    """`save(path, array)`: a PNG (16-bit colour too) or `.npy` file, folders made."""

    def write(path: Path, array: np.ndarray) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix == ".npy":
            np.save(path, array)
        elif array.dtype == np.uint16 and array.ndim == 3:
            path.write_bytes(wide_png(array))
        else:
            Image.fromarray(array).save(path)
        return path

    return write


def wide_png(array: np.ndarray) -> bytes:
    """16-bit RGB or RGBA as PNG; rows take turns in the five filters' first three."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        body = kind + data
        return struct.pack(">I", len(data)) + body + struct.pack(">I", zlib.crc32(body))

    height, width, channels = array.shape
    colour_type = {3: 2, 4: 6}[channels]
    header = struct.pack(">IIBBBBB", width, height, 16, colour_type, 0, 0, 0)
    rows = array.astype(">u2").view(np.uint8).reshape(height, -1)
    above = np.vstack([np.zeros_like(rows[:1]), rows[:-1]])
    left = np.hstack([np.zeros_like(rows[:, : 2 * channels]), rows[:, : -2 * channels]])
    filtered = [rows, rows - left, rows - above]
    lines = b"".join(bytes([y % 3]) + filtered[y % 3][y].tobytes() for y in range(height))
    parts = (chunk(b"IHDR", header), chunk(b"IDAT", zlib.compress(lines)), chunk(b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)
