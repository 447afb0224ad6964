"""The lossless encoding of a shard's images and labels.

Written: a `.npy` array in one Zstandard frame with a checksum (`npy.zst`), the same bytes for the
same array and zstd version; `docs/decisions.md` has the measurements. Read: that, or a PNG of mode L,
RGB or I;16, as shards from elsewhere hold; the first bytes tell them apart. Nothing is unpickled. An
image in another form than its modality's stored form is a `CorruptShard`.
"""

from __future__ import annotations

from functools import cache
from io import BytesIO
from typing import Any

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray
from PIL import Image

from pipeline.errors import CorruptShard
from pipeline.modalities import LABEL_SPEC, ModalitySpec, check_array

MODES = {("uint8", 1): "L", ("uint8", 3): "RGB", ("uint16", 1): "I;16"}
"""(dtype, channels) of a stored form to the Pillow mode of its PNG."""
PNG_LEVEL = 3
ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"
ZSTD_LEVEL = 3


def encode_array(array: NDArray[Any]) -> bytes:
    """`.npy` in a Zstandard frame, of an array in a stored form; `KeyError` for others."""
    MODES[array.dtype.name, 1 if array.ndim == 2 else array.shape[2]]
    file = BytesIO()
    # A fixed version, and rows before columns: shards are compared by digest, so equal arrays must
    # give equal bytes however they lie in memory.
    npy.write_array(file, np.ascontiguousarray(array), version=(1, 0), allow_pickle=False)
    return bytes(_zstd().encode(file.getvalue()))


def encode_png(array: NDArray[Any]) -> bytes:
    """PNG of an (H, W) uint8, (H, W) uint16 or (H, W, 3) uint8 array; `KeyError` for others."""
    mode = MODES[array.dtype.name, 1 if array.ndim == 2 else array.shape[2]]
    image = Image.frombytes(mode, (array.shape[1], array.shape[0]), array.tobytes())
    file = BytesIO()
    image.save(file, "PNG", compress_level=PNG_LEVEL)
    return file.getvalue()


def decode_image(data: bytes, spec: ModalitySpec, where: str) -> NDArray[Any]:
    """(H, W) or (H, W, 3) array in the stored form of `spec`.

    `where` names the member in the error. Raises `CorruptShard`.
    """
    array = _decode_array(data, where) if data[:4] == ZSTD_MAGIC else _decode_png(data, where)
    problem = check_array(array, spec)
    if problem:
        raise CorruptShard(f"{where}: {problem}")
    return array


def decode_label(data: bytes, where: str) -> NDArray[np.uint8]:
    """(H, W) class ids. Raises `CorruptShard`."""
    return decode_image(data, LABEL_SPEC, where)


def unpack(data: bytes, where: str) -> bytes:
    """The `.npy` file in a Zstandard frame. Raises `CorruptShard`."""
    try:
        return bytes(_zstd().decode(data))
    except Exception as error:  # a decoder given corrupted bytes may raise anything
        raise CorruptShard(f"{where}: expected a .npy in zstd, found: {error}") from error


def parse_npy(data: bytes) -> NDArray[Any]:
    """The array of a `.npy` file, read-only. Raises whatever corrupted bytes make NumPy raise.

    Unlike `np.load`, a header cannot ask for more memory than there are bytes.
    """
    file = BytesIO(data)
    version = npy.read_magic(file)
    read_header = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}[version]
    shape, by_column, dtype = read_header(file)
    if dtype.hasobject:  # would be unpickled, which can run code
        raise ValueError("Python objects")
    body = memoryview(data)[file.tell() :]
    return np.frombuffer(body, dtype).reshape(shape, order="F" if by_column else "C")


@cache
def _zstd() -> Any:
    # numcodecs brings all of its codecs, half a second that `any2seg --help` need not wait for.
    from numcodecs.zstd import Zstd

    return Zstd(level=ZSTD_LEVEL, checksum=True)


def _decode_array(data: bytes, where: str) -> NDArray[Any]:
    unpacked = unpack(data, where)
    try:
        return parse_npy(unpacked).copy()  # writable, as the array of a PNG is
    except Exception as error:  # a decoder given corrupted bytes may raise anything
        raise CorruptShard(f"{where}: expected a .npy in zstd, found: {error}") from error


def _decode_png(data: bytes, where: str) -> NDArray[Any]:
    try:
        # One format only: each of Pillow's decoders is attack surface, and shards hold no other.
        image = Image.open(BytesIO(data), formats=["PNG"])
        image.load()
    except Exception as error:  # a decoder given corrupted bytes may raise anything
        raise CorruptShard(f"{where}: expected an image, found: {error}") from error
    if image.mode not in MODES.values():
        raise CorruptShard(
            f"{where}: expected a PNG of mode {', '.join(MODES.values())}; found {image.mode}"
        )
    return np.array(image)
