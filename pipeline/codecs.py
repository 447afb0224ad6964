"""Stored forms to PNG bytes and back, without loss: what a shard's pictures and labels are.

8-bit grey (L), 8-bit RGB and 16-bit grey (I;16). Encoding gives the same bytes for the same array
and Pillow version. A picture that does not have the form its modality asks for is a
`CorruptShard`.
"""

from __future__ import annotations

from io import BytesIO
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pipeline.errors import CorruptShard
from pipeline.modalities import ModalitySpec

COMPRESS_LEVEL = 3
MODES = {("uint8", 1): "L", ("uint8", 3): "RGB", ("uint16", 1): "I;16"}
"""(dtype, channels) of a stored form to the Pillow mode of its PNG."""


def encode_png(array: NDArray[Any]) -> bytes:
    """PNG of an (H, W) uint8, (H, W) uint16 or (H, W, 3) uint8 array; `KeyError` for others."""
    channels = 1 if array.ndim == 2 else array.shape[2]
    mode = MODES[array.dtype.name, channels]
    image = Image.frombytes(mode, (array.shape[1], array.shape[0]), array.tobytes())
    file = BytesIO()
    image.save(file, "PNG", compress_level=COMPRESS_LEVEL)
    return file.getvalue()


def decode_png(data: bytes, spec: ModalitySpec, where: str) -> NDArray[Any]:
    """(H, W) or (H, W, 3) array in the stored form of `spec`.

    `where` names the member in the error. Raises `CorruptShard`.
    """
    return _decode(data, MODES[spec.dtype, spec.channels], where)


def decode_label(data: bytes, where: str) -> NDArray[np.uint8]:
    """(H, W) class ids. Raises `CorruptShard`."""
    return _decode(data, "L", where)


def _decode(data: bytes, mode: str, where: str) -> NDArray[Any]:
    try:
        image = Image.open(BytesIO(data), formats=["PNG"])
        image.load()
    except Exception as error:  # a decoder fed with damaged bytes may raise anything
        raise CorruptShard(f"{where}: expected a PNG, found: {error}") from error
    if image.mode != mode:
        raise CorruptShard(f"{where}: expected a PNG of mode {mode}, found {image.mode}")
    return np.array(image)
