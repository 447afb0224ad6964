"""Source images become stored forms by rule, not by accident."""

from __future__ import annotations

import struct
import zlib
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipeline.datasets.base import IGNORE_ID
from pipeline.datasets.images import (
    REFUSED_ID,
    BadPictureError,
    label_table,
    read_label,
    read_picture,
)
from pipeline.modalities import KINDS

GREY = np.arange(20, dtype=np.uint8).reshape(4, 5)
COLOUR = np.arange(60, dtype=np.uint8).reshape(4, 5, 3)


def saved(path: Path, image: Image.Image) -> Path:
    image.save(path)
    return path


def test_grey_is_replicated_for_a_colour_kind(tmp_path: Path) -> None:
    path = saved(tmp_path / "g.png", Image.fromarray(GREY))
    np.testing.assert_array_equal(read_picture(path, KINDS["rgb"]), np.dstack([GREY] * 3))


def test_alpha_is_dropped_not_blended(tmp_path: Path) -> None:
    alpha = np.full((4, 5, 1), 10, np.uint8)
    path = saved(tmp_path / "c.png", Image.fromarray(np.dstack([COLOUR, alpha])))
    np.testing.assert_array_equal(read_picture(path, KINDS["rgb"]), COLOUR)
    path = saved(tmp_path / "g.png", Image.fromarray(np.dstack([GREY, alpha])))
    np.testing.assert_array_equal(read_picture(path, KINDS["gray"]), GREY)


def test_palette_images_are_expanded(tmp_path: Path) -> None:
    image = Image.fromarray(COLOUR).quantize(8)
    path = saved(tmp_path / "p.png", image)
    expected = np.asarray(image.convert("RGB"))
    np.testing.assert_array_equal(read_picture(path, KINDS["rgb"]), expected)


def test_equal_channels_serve_a_grey_kind_and_colour_does_not(tmp_path: Path) -> None:
    path = saved(tmp_path / "g.png", Image.fromarray(np.dstack([GREY] * 3)))
    np.testing.assert_array_equal(read_picture(path, KINDS["nir"]), GREY)
    path = saved(tmp_path / "c.png", Image.fromarray(COLOUR))
    with pytest.raises(BadPictureError, match="expected a grey image, found colour"):
        read_picture(path, KINDS["nir"])


def test_16_bit_values_are_kept_whole(tmp_path: Path) -> None:
    values = np.array([[0, 255, 256], [1000, 65534, 65535]], np.uint16)
    for name in ("d.png", "d.tif"):
        path = saved(tmp_path / name, Image.fromarray(values))
        np.testing.assert_array_equal(read_picture(path, KINDS["depth"]), values)


def test_bit_depths_do_not_pass_for_each_other(tmp_path: Path) -> None:
    narrow = saved(tmp_path / "8.png", Image.fromarray(GREY))
    wide = saved(tmp_path / "16.png", Image.fromarray(GREY.astype(np.uint16)))
    with pytest.raises(BadPictureError, match="expected a 16-bit single-channel image, found L"):
        read_picture(narrow, KINDS["depth"])
    with pytest.raises(BadPictureError, match=r"expected an 8-bit grey or RGB image, found I;16"):
        read_picture(wide, KINDS["gray"])


def test_16_bit_colour_is_refused_rather_than_narrowed(tmp_path: Path) -> None:
    path = tmp_path / "rgb48.png"
    path.write_bytes(png_48_bit(3, 2))
    with pytest.raises(BadPictureError, match="expected 8 bits a colour channel"):
        read_picture(path, KINDS["rgb"])


def png_48_bit(width: int, height: int) -> bytes:
    """A 16-bit RGB PNG, which Pillow reads but cannot write."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        body = kind + data
        return struct.pack(">I", len(data)) + body + struct.pack(">I", zlib.crc32(body))

    header = struct.pack(">IIBBBBB", width, height, 16, 2, 0, 0, 0)
    rows = (b"\0" + bytes(range(width * 6))) * height
    parts = (chunk(b"IHDR", header), chunk(b"IDAT", zlib.compress(rows)), chunk(b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def test_rotated_by_exif_is_refused(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[274] = 6
    path = tmp_path / "r.jpg"
    Image.fromarray(COLOUR).save(path, exif=exif)
    with pytest.raises(BadPictureError, match="EXIF orientation 6"):
        read_picture(path, KINDS["rgb"])


def test_an_absurdly_large_image_is_refused(tmp_path: Path) -> None:
    file = BytesIO()
    Image.fromarray(GREY).save(file, "BMP")
    data = bytearray(file.getvalue())
    data[18:26] = (60_000).to_bytes(4, "little") * 2
    path = tmp_path / "bomb.bmp"
    path.write_bytes(data)
    with pytest.raises(BadPictureError, match="decompression bomb"):
        read_picture(path, KINDS["gray"])


def test_lossy_and_colour_labels_are_refused(tmp_path: Path) -> None:
    table = label_table(3, (255,), {})
    with pytest.raises(BadPictureError, match="lossless"):
        read_label(saved(tmp_path / "l.jpg", Image.fromarray(GREY)), table)
    with pytest.raises(BadPictureError, match="single-channel label, found RGB"):
        read_label(saved(tmp_path / "l.png", Image.fromarray(COLOUR)), table)


def test_label_table() -> None:
    plain = label_table(3, (255, 9), {})
    assert plain[[0, 2, 3, 9, 255]].tolist() == [0, 2, REFUSED_ID, IGNORE_ID, IGNORE_ID]
    mapped = label_table(3, (255,), {7: 0, 8: IGNORE_ID})
    assert mapped[[0, 7, 8, 255]].tolist() == [REFUSED_ID, 0, IGNORE_ID, IGNORE_ID]
