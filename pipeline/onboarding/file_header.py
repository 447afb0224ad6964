"""Bits, channels and size of an image or array file, from its header alone.

A file whose header cannot be read has the form `UNREADABLE`; nothing is raised.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from pipeline.formats.image_file import ARRAY_EXTENSIONS

_CHANNELS = {"1": 1, "L": 1, "P": 1, "LA": 2, "PA": 2, "RGB": 3, "RGBA": 4, "CMYK": 4, "F": 1}
_NAMES = {1: "grey", 2: "grey with alpha", 3: "RGB", 4: "RGBA"}


@dataclass(frozen=True, slots=True, order=True)
class FileForm:
    """An image or array file as its header describes it."""

    bits: int
    """Bits a channel."""
    channels: int
    height: int
    width: int
    mode: str = ""
    """What bits and channels do not tell: `palette`, `CMYK`, `float`, ..."""

    @property
    def colour(self) -> bool:
        """Whether it has three colour channels, alpha aside."""
        return self.channels in (3, 4)

    def __str__(self) -> str:
        if not self.bits:
            return self.mode
        name = self.mode or _NAMES.get(self.channels, f"{self.channels} channels")
        return f"{self.bits}-bit {name} {self.width} x {self.height}"


UNREADABLE = FileForm(0, 0, 0, 0, "unreadable")


def file_form(path: Path) -> FileForm:
    """The form of an image (any that Pillow knows) or of a `.npy` array."""
    try:
        if path.suffix.lower() in ARRAY_EXTENSIONS:
            return _array_form(path)
        with Image.open(path) as image:
            return _image_form(image)
    except Exception:  # a parser may raise anything on corrupted bytes
        return UNREADABLE


def _array_form(path: Path) -> FileForm:
    array = np.load(path, mmap_mode="r")
    if not isinstance(array, np.ndarray) or array.ndim not in (2, 3):
        return FileForm(0, 0, 0, 0, "an array file that is not one image")
    height, width, channels = (*array.shape, 1)[:3]
    mode = "float" if array.dtype.kind == "f" else ""
    return FileForm(8 * array.dtype.itemsize, channels, height, width, mode)


def _image_form(image: Image.Image) -> FileForm:
    mode = image.mode
    tiles = getattr(image, "tile", [])
    raw = str(tiles[0][3]) if tiles else ""
    bits = 32 if mode == "F" else 16 if mode.startswith("I") or "16" in raw else 8
    names = {"P": "palette", "PA": "palette", "CMYK": "CMYK", "F": "float"}
    return FileForm(bits, _CHANNELS.get(mode, 1), image.height, image.width, names.get(mode, ""))
