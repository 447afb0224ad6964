"""Source pictures to stored forms, by rule: bit depth, grey or colour, alpha, palettes, label ids.

Nothing is written. A picture that does not fit raises `BadPictureError`, whose text names the file,
what was expected and what was found; adapters turn it into `SampleRefused`.

Rules: 16-bit kinds need 16-bit pictures and 8-bit kinds 8-bit ones; a colour kind given a grey
picture replicates it; a grey kind given a colour picture is served if all channels are equal; alpha
is dropped; palette pictures are expanded, except labels, whose palette indices are the ids.
"""

from __future__ import annotations

from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFile

from pipeline.datasets.base import IGNORE_ID
from pipeline.modalities import ModalitySpec

EXTENSIONS = frozenset({".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp"})
"""File name endings (any case) that count as pictures."""
LOSSY = frozenset({".jpg", ".jpeg"})
ORIENTATION_TAG = 274
SIXTEEN_BIT_MODES = ("I;16", "I;16L", "I;16B", "I;16N", "I")
REFUSED_ID = -1


class BadPictureError(Exception):
    """A file that cannot serve; the text says which, what was expected and what was found."""


def read_picture(path: Path, spec: ModalitySpec) -> NDArray[Any]:
    """(H, W) or (H, W, 3), uint8 or uint16, as `spec` is stored. Raises `BadPictureError`."""
    image = _open(path)
    values = _values_16_bit(path, image) if spec.dtype == "uint16" else _values_8_bit(path, image)
    if spec.channels == 3:
        return values if values.ndim == 3 else np.repeat(values[:, :, None], 3, axis=2)
    if values.ndim == 2:
        return values
    if (values != values[:, :, :1]).any():
        raise BadPictureError(f"{path}: expected a grey picture, found colour ({image.mode})")
    return np.ascontiguousarray(values[:, :, 0])


def read_label(path: Path, id_table: NDArray[np.int16]) -> NDArray[np.uint8]:
    """(H, W) class ids of a label picture through `id_table` (see `label_table`).

    Raises `BadPictureError` naming the raw ids that the table refuses.
    """
    if path.suffix.lower() in LOSSY:
        raise BadPictureError(f"{path}: expected a lossless label picture, found JPEG")
    image = _open(path)
    if image.mode not in ("L", "P", "1", *SIXTEEN_BIT_MODES):
        raise BadPictureError(f"{path}: expected a single-channel label, found {image.mode}")
    raw = np.asarray(image).astype(np.int32)
    if raw.min() < 0 or raw.max() >= len(id_table):
        raise BadPictureError(
            f"{path}: label ids from {raw.min()} to {raw.max()}; expected 16-bit ids"
        )
    ids = id_table[raw]
    if ids.min() == REFUSED_ID:
        bad = np.unique(raw[ids == REFUSED_ID])
        raise BadPictureError(
            f"{path}: label id {', '.join(map(str, bad[:5]))} is out of range (no class has it); "
            "list it in dataset.ignore_ids or dataset.remap, or mend the label"
        )
    return ids.astype(np.uint8)


def label_table(
    num_classes: int, ignore_ids: tuple[int, ...], remap: dict[int, int]
) -> NDArray[np.int16]:
    """(65536,) raw id to class id, `IGNORE_ID` or `REFUSED_ID`.

    A non-empty `remap` is complete: raw ids in neither it nor `ignore_ids` are refused, because
    letting them through unchanged would silently give them another class's id.
    """
    table = np.full(2**16, REFUSED_ID, dtype=np.int16)
    if remap:
        table[list(remap)] = list(remap.values())
    else:
        table[:num_classes] = np.arange(num_classes)
    table[list(ignore_ids)] = IGNORE_ID
    return table


def _open(path: Path) -> Image.Image:
    """The decoded picture. PNG checksums are verified, because Pillow's decoder does not."""
    data = _read_bytes(path)
    try:
        with Image.open(BytesIO(data)) as probe:
            probe.verify()
        image = Image.open(BytesIO(data))
        raw_mode = _raw_mode(image)
        image.load()
        orientation = image.getexif().get(ORIENTATION_TAG, 1)
    except Exception as error:  # a decoder fed with damaged bytes may raise anything
        raise BadPictureError(f"{path}: expected a whole picture, found: {error}") from None
    if orientation != 1:
        raise BadPictureError(
            f"{path}: expected upright pixels, found EXIF orientation {orientation}"
        )
    if image.mode in ("RGB", "RGBA") and "16" in raw_mode:
        raise BadPictureError(f"{path}: expected 8 bits a colour channel, found {raw_mode}")
    return image


def _read_bytes(path: Path) -> bytes:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise BadPictureError(f"{path}: cannot be read: {error.strerror}") from None
    if not data:
        raise BadPictureError(f"{path}: expected a picture, found an empty file")
    return data


def _raw_mode(image: ImageFile.ImageFile) -> str:
    """How the samples lie in the file; Pillow narrows 16-bit colour to 8 without a word."""
    return str(image.tile[0][3]) if image.tile else ""


def _values_16_bit(path: Path, image: Image.Image) -> NDArray[Any]:
    if image.mode not in SIXTEEN_BIT_MODES:
        raise BadPictureError(
            f"{path}: expected a 16-bit single-channel picture, found {image.mode}"
        )
    values = np.asarray(image)
    if values.min() < 0 or values.max() > 65_535:
        raise BadPictureError(
            f"{path}: expected 16-bit values, found {values.min()}..{values.max()}"
        )
    return values.astype(np.uint16)


def _values_8_bit(path: Path, image: Image.Image) -> NDArray[Any]:
    if image.mode in ("1", "LA"):
        image = image.convert("L")
    elif image.mode in ("P", "PA", "RGBA"):
        image = image.convert("RGBA").convert("RGB")
    if image.mode not in ("L", "RGB"):
        raise BadPictureError(f"{path}: expected an 8-bit grey or RGB picture, found {image.mode}")
    return np.array(image)
