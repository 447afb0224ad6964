"""Forms of files by their headers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipeline.onboarding.file_header import UNREADABLE, file_form


@pytest.mark.parametrize(
    ("mode", "ending", "words", "colour"),
    [
        ("L", "png", "8-bit grey 5 x 3", False),
        ("1", "png", "8-bit grey 5 x 3", False),
        ("P", "png", "8-bit palette 5 x 3", False),
        ("RGB", "jpg", "8-bit RGB 5 x 3", True),
        ("RGBA", "png", "8-bit RGBA 5 x 3", True),
        ("CMYK", "jpg", "8-bit CMYK 5 x 3", True),
        ("I;16", "png", "16-bit grey 5 x 3", False),
        ("F", "tif", "32-bit float 5 x 3", False),
    ],
)
def test_headers_of_images(
    tmp_path: Path, mode: str, ending: str, words: str, colour: bool
) -> None:
    path = tmp_path / f"a.{ending}"
    Image.new(mode, (5, 3)).save(path)
    assert str(file_form(path)) == words
    assert file_form(path).colour is colour


def test_headers_of_arrays(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.zeros((3, 5, 3), np.float32))
    assert str(file_form(tmp_path / "a.npy")) == "32-bit float 5 x 3"
    np.save(tmp_path / "b.npy", np.zeros((3, 5), np.uint16))
    assert str(file_form(tmp_path / "b.npy")) == "16-bit grey 5 x 3"
    np.savez(tmp_path / "c.npz", a=np.zeros((3, 5)))
    assert str(file_form(tmp_path / "c.npz")) == "an array file that is not one image"


def test_an_unreadable_file_has_the_form_unreadable(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"not an image")
    for name in ("a.png", "none.png", "none.npy"):
        assert file_form(tmp_path / name) == UNREADABLE
    assert str(UNREADABLE) == "unreadable"
