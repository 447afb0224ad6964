"""PNG codecs: without loss, the same bytes every time, and nothing but the expected form."""

from __future__ import annotations

from io import BytesIO

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from pipeline.codecs import decode_label, decode_png, encode_png
from pipeline.errors import CorruptShard
from pipeline.modalities import KINDS


@given(
    kind=st.sampled_from(["rgb", "gray", "depth"]),
    height=st.integers(1, 9),
    width=st.integers(1, 9),
    seed=st.integers(0, 2**16),
)
def test_round_trip(kind: str, height: int, width: int, seed: int) -> None:
    spec = KINDS[kind]
    shape = (height, width) if spec.channels == 1 else (height, width, 3)
    top = np.iinfo(spec.dtype).max
    array = np.random.default_rng(seed).integers(0, top, shape, dtype=spec.dtype, endpoint=True)
    data = encode_png(array)
    assert data == encode_png(np.asfortranarray(array))
    found = decode_png(data, spec, "x")
    assert found.dtype == array.dtype
    np.testing.assert_array_equal(found, array)


def test_the_whole_range_of_16_bits_survives() -> None:
    array = np.arange(2**16, dtype=np.uint16).reshape(256, 256)
    np.testing.assert_array_equal(decode_png(encode_png(array), KINDS["depth"], "x"), array)


def test_other_forms_are_not_encoded() -> None:
    for array in (np.zeros((2, 2), np.float32), np.zeros((2, 2, 4), np.uint8)):
        with pytest.raises(KeyError):
            encode_png(array)


def test_a_picture_of_another_form_is_refused_by_name() -> None:
    grey, wide = np.zeros((2, 2), np.uint8), np.zeros((2, 2), np.uint16)
    with pytest.raises(CorruptShard, match=r"s.tar:k.rgb.png: expected a PNG of mode RGB, found L"):
        decode_png(encode_png(grey), KINDS["rgb"], "s.tar:k.rgb.png")
    with pytest.raises(CorruptShard, match="expected a PNG of mode L, found I;16"):
        decode_label(encode_png(wide), "x")


def test_damaged_and_foreign_bytes_are_refused_by_name() -> None:
    data = encode_png(np.zeros((20, 20), np.uint8))
    for bad in (b"", b"text", data[: len(data) // 2], b"\x80\x04K\x01."):
        with pytest.raises(CorruptShard, match="member: expected a PNG"):
            decode_label(bad, "member")


def test_only_png_is_tried() -> None:
    file = BytesIO()
    Image.new("L", (2, 2)).save(file, "BMP")
    with pytest.raises(CorruptShard):
        decode_label(file.getvalue(), "x")
