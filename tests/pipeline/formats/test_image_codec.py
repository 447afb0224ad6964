"""Codecs: without loss, the same bytes every time, and nothing but the expected form."""

from __future__ import annotations

from collections.abc import Callable
from io import BytesIO
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numcodecs.zstd import Zstd
from PIL import Image

from pipeline.errors import CorruptShard
from pipeline.formats.image_codec import (
    decode_image,
    decode_label,
    encode_array,
    encode_png,
    parse_npy,
)
from pipeline.modalities import KINDS

Encode = Callable[[np.ndarray], bytes]
ENCODERS = [encode_array, encode_png]


@given(
    encode=st.sampled_from(ENCODERS),
    kind=st.sampled_from(["rgb", "gray", "depth"]),
    height=st.integers(1, 9),
    width=st.integers(1, 9),
    seed=st.integers(0, 2**16),
)
def test_encode_and_decode_round_trip(
    encode: Encode, kind: str, height: int, width: int, seed: int
) -> None:
    spec = KINDS[kind]
    shape = (height, width) if spec.channels == 1 else (height, width, 3)
    top = np.iinfo(spec.dtype).max
    array = np.random.default_rng(seed).integers(0, top, shape, dtype=spec.dtype, endpoint=True)
    data = encode(array)
    assert data == encode(np.asfortranarray(array))
    found = decode_image(data, spec, "x")
    assert found.dtype == array.dtype
    np.testing.assert_array_equal(found, array)
    found[:] = 0  # a transform may work in place


@pytest.mark.parametrize("encode", ENCODERS)
def test_every_16_bit_value_round_trips(encode: Encode) -> None:
    array = np.arange(2**16, dtype=np.uint16).reshape(256, 256)
    np.testing.assert_array_equal(decode_image(encode(array), KINDS["depth"], "x"), array)


def test_numpy_and_zstd_alone_read_it() -> None:
    array = np.arange(6, dtype=np.uint16).reshape(2, 3)
    found = np.load(BytesIO(Zstd().decode(encode_array(array))), allow_pickle=False)
    np.testing.assert_array_equal(found, array)


@pytest.mark.parametrize("encode", ENCODERS)
@pytest.mark.parametrize("array", [np.zeros((2, 2), np.float32), np.zeros((2, 2, 4), np.uint8)])
def test_arrays_in_other_forms_are_not_encoded(encode: Encode, array: np.ndarray) -> None:
    with pytest.raises(KeyError):
        encode(array)


@pytest.mark.parametrize("encode", ENCODERS)
def test_an_image_of_another_form_is_refused_by_name(encode: Encode) -> None:
    grey, wide = np.zeros((2, 2), np.uint8), np.zeros((2, 2), np.uint16)
    with pytest.raises(
        CorruptShard, match=r"s.tar:k.rgb: expected \(H, W, 3\) uint8, found \(2, 2\)"
    ):
        decode_image(encode(grey), KINDS["rgb"], "s.tar:k.rgb")
    with pytest.raises(CorruptShard, match=r"expected \(H, W\) uint8, found \(2, 2\) uint16"):
        decode_label(encode(wide), "x")


@pytest.mark.parametrize("encode", ENCODERS)
def test_corrupted_and_foreign_bytes_are_refused_by_name(encode: Encode) -> None:
    data = encode(np.zeros((20, 20), np.uint8))
    for bad in (b"", b"text", data[: len(data) // 2], b"\x80\x04K\x01.", data[:4]):
        with pytest.raises(CorruptShard, match="member: expected a"):
            decode_label(bad, "member")


def test_every_flipped_byte_of_an_array_is_detected() -> None:
    data = encode_array(np.arange(48, dtype=np.uint8).reshape(6, 8))
    for place in range(len(data)):
        flipped = bytearray(data)
        flipped[place] ^= 1
        with pytest.raises(CorruptShard):
            decode_label(bytes(flipped), "x")


def test_only_the_png_decoder_is_tried() -> None:
    file = BytesIO()
    Image.new("L", (2, 2)).save(file, "BMP")
    with pytest.raises(CorruptShard):
        decode_label(file.getvalue(), "x")


@pytest.mark.parametrize("array", [np.array([{}], dtype=object), np.zeros((2, 3))])
def test_object_arrays_and_oversized_headers_are_refused(array: Any) -> None:
    file = BytesIO()
    np.save(file, array, allow_pickle=True)
    if array.dtype.hasobject:
        with pytest.raises(ValueError, match="Python objects"):
            parse_npy(file.getvalue())
    else:
        inflated = file.getvalue().replace(b"(2, 3)", b"(2000000000, 3)").replace(b" " * 9, b"", 1)
        with pytest.raises(ValueError, match="cannot reshape|buffer"):
            parse_npy(inflated)
