"""Image files become arrays by rule, not by accident."""

from __future__ import annotations

import struct
import zlib
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipeline.formats.image_file import BadImageError, read_any_image, read_image
from pipeline.modalities import KINDS

GREY = np.arange(20, dtype=np.uint8).reshape(4, 5)
COLOUR = np.arange(60, dtype=np.uint8).reshape(4, 5, 3)


def saved(path: Path, image: Image.Image) -> Path:
    image.save(path)
    return path


def test_grey_is_replicated_for_a_colour_kind(tmp_path: Path) -> None:
    path = saved(tmp_path / "g.png", Image.fromarray(GREY))
    np.testing.assert_array_equal(read_image(path, KINDS["rgb"]), np.dstack([GREY] * 3))


def test_alpha_is_dropped_not_blended(tmp_path: Path) -> None:
    alpha = np.full((4, 5, 1), 10, np.uint8)
    path = saved(tmp_path / "c.png", Image.fromarray(np.dstack([COLOUR, alpha])))
    np.testing.assert_array_equal(read_image(path, KINDS["rgb"]), COLOUR)
    path = saved(tmp_path / "g.png", Image.fromarray(np.dstack([GREY, alpha])))
    np.testing.assert_array_equal(read_image(path, KINDS["gray"]), GREY)


def test_palette_images_are_expanded(tmp_path: Path) -> None:
    image = Image.fromarray(COLOUR).quantize(8)
    path = saved(tmp_path / "p.png", image)
    expected = np.asarray(image.convert("RGB"))
    np.testing.assert_array_equal(read_image(path, KINDS["rgb"]), expected)


def test_equal_channels_serve_a_grey_kind_and_colour_does_not(tmp_path: Path) -> None:
    path = saved(tmp_path / "g.png", Image.fromarray(np.dstack([GREY] * 3)))
    np.testing.assert_array_equal(read_image(path, KINDS["nir"]), GREY)
    path = saved(tmp_path / "c.png", Image.fromarray(COLOUR))
    with pytest.raises(BadImageError, match="expected a grey image, found colour"):
        read_image(path, KINDS["nir"])


def test_16_bit_values_are_kept(tmp_path: Path) -> None:
    values = np.array([[0, 255, 256], [1000, 65534, 65535]], np.uint16)
    for name in ("d.png", "d.tif"):
        path = saved(tmp_path / name, Image.fromarray(values))
        np.testing.assert_array_equal(read_image(path, KINDS["depth"]), values)


def test_images_of_another_bit_depth_are_refused(tmp_path: Path) -> None:
    narrow = saved(tmp_path / "8.png", Image.fromarray(GREY))
    wide = saved(tmp_path / "16.png", Image.fromarray(GREY.astype(np.uint16)))
    with pytest.raises(BadImageError, match="expected a 16-bit single-channel image, found L"):
        read_image(narrow, KINDS["depth"])
    with pytest.raises(BadImageError, match=r"expected an 8-bit grey or RGB image, found I;16"):
        read_image(wide, KINDS["gray"])


def test_16_bit_colour_is_refused_rather_than_narrowed(tmp_path: Path) -> None:
    path = tmp_path / "rgb48.png"
    path.write_bytes(png_48_bit(3, 2))
    with pytest.raises(BadImageError, match="expected 8 bits a colour channel"):
        read_image(path, KINDS["rgb"])


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
    with pytest.raises(BadImageError, match="EXIF orientation 6"):
        read_image(path, KINDS["rgb"])


def test_a_decompression_bomb_is_refused(tmp_path: Path) -> None:
    file = BytesIO()
    Image.fromarray(GREY).save(file, "BMP")
    data = bytearray(file.getvalue())
    data[18:26] = (60_000).to_bytes(4, "little") * 2
    path = tmp_path / "bomb.bmp"
    path.write_bytes(data)
    with pytest.raises(BadImageError, match="decompression bomb"):
        read_image(path, KINDS["gray"])


@pytest.mark.parametrize(
    ("values", "found"), [([0, 65_536], "0..65536"), ([70_000, 5], "5..70000"), ([-1, 5], "-1..5")]
)
@pytest.mark.parametrize("name", ["x.tif", "x.npy"])
def test_values_that_16_bits_cannot_hold_are_refused(
    tmp_path: Path, values: list[int], found: str, name: str
) -> None:
    array, path = np.array([values], np.int32), tmp_path / name
    if path.suffix == ".npy":
        np.save(path, array)
    else:
        Image.fromarray(array).save(path)
    with pytest.raises(BadImageError, match=rf"expected values 0\.\.65535, found {found}"):
        read_image(path, KINDS["depth"])
    with pytest.raises(BadImageError, match=rf"expected values 0\.\.65535, found {found}"):
        read_any_image(path)


def test_read_any_image_keeps_the_form_and_ignores_the_orientation(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[274] = 6
    path = tmp_path / "r.png"
    Image.fromarray(COLOUR).save(path, exif=exif)
    np.testing.assert_array_equal(read_any_image(path), COLOUR)
    wide = GREY.astype(np.int32) + 60_000
    found = read_any_image(saved(tmp_path / "w.tif", Image.fromarray(wide)))
    assert found.dtype == np.uint16
    np.testing.assert_array_equal(found, wide)
    path.write_bytes(png_48_bit(3, 2))
    assert read_any_image(path).dtype == np.uint16
    with pytest.raises(BadImageError, match="expected whole numbers, found F"):
        read_any_image(saved(tmp_path / "f.tif", Image.fromarray(GREY.astype(np.float32))))


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P", "1", "I;16"])
def test_every_image_mode_is_read_by_rule(tmp_path: Path, mode: str) -> None:
    rgb = np.random.default_rng([3]).integers(0, 256, (8, 9, 3), dtype=np.uint8)
    if mode == "I;16":
        image = Image.fromarray(rgb[..., 0].astype(np.uint16) * 257)
    else:
        image = Image.fromarray(rgb).convert(mode)
    image.save(tmp_path / "x.png")
    array = read_any_image(tmp_path / "x.png")
    wanted = dict.fromkeys(("I;16", "LA", "1"), (8, 9)).get(mode, (8, 9, 3))
    assert array.shape == wanted
    assert array.dtype == (np.uint16 if mode == "I;16" else np.uint8)
    if mode == "RGBA":
        assert np.array_equal(array, rgb)
