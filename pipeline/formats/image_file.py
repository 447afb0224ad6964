"""Image and array files to NumPy arrays, by rule: bit depth, grey or colour, alpha, palettes.

A file that breaks a rule raises `BadImageError`, whose text names the file, the expected and the
actual form.

Rules: alpha is dropped; palettes are expanded, except by `read_ids`, which returns their indices;
values above 65,535 or below 0 are refused, never wrapped. Where a kind is given, 16-bit kinds need
16-bit images and 8-bit kinds 8-bit ones; a grey image is replicated for a colour kind; a colour image
serves a grey kind if its channels are equal. Arrays (`.npy`, `.npz` with one array) are read too, never
unpickled.
"""

from __future__ import annotations

import warnings
import zipfile
from dataclasses import dataclass
from io import BytesIO
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFile

from pipeline.formats.image_codec import parse_npy
from pipeline.modalities import ModalitySpec

EXTENSIONS = frozenset({".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp"})
"""File name endings (any case) that count as images."""
ARRAY_EXTENSIONS = frozenset({".npy", ".npz"})
"""File name endings of arrays; read where a pattern or a layout names them."""
ORIENTATION_TAG = 274
SIXTEEN_BIT_MODES = ("I;16", "I;16L", "I;16B", "I;16N", "I")
WIDE_COLOUR = {"RGB;16B": "RGB;16L", "RGBA;16B": "RGBA;16L"}
"""Raw mode of 16-bit colour in a PNG, to the byte order in which Pillow returns the low bytes."""
NUM_CHANNELS = {"L": 1, "RGB": 3, "F": 1, **dict.fromkeys(SIXTEEN_BIT_MODES, 1)}
MAX_ARRAY_BYTES = 2**30


class File(Protocol):
    """A file to read: a path, or a member of a tar. Its text names it in messages."""

    @property
    def suffix(self) -> str:
        """Ending of the name, with its dot."""

    def read_bytes(self) -> bytes:
        """The whole content. `OSError` if it cannot be read."""


class BadImageError(Exception):
    """A file that cannot be used; the text names it, the expected and the actual form."""


@dataclass(frozen=True, slots=True)
class Raw:
    """The pixel values as they are in the file: alpha dropped, palettes expanded, nothing narrowed."""

    values: NDArray[Any]
    """(H, W) or (H, W, 3); uint8, uint16, another integer type or float."""
    mode: str
    """Pillow's mode (`L`, `RGB`, `I;16`, ...), or the dtype of an array."""


def read_image(path: File, spec: ModalitySpec) -> NDArray[Any]:
    """(H, W) or (H, W, 3), uint8 or uint16: the stored form of `spec`. Raises `BadImageError`."""
    raw = read_raw(path)
    require_depth(path, raw, spec.dtype)
    return to_channels(path, raw, spec)


def read_any_image(path: File) -> NDArray[Any]:
    """(H, W) or (H, W, 3), uint8 or uint16, as in the file; an EXIF orientation is ignored.

    Raises `BadImageError`.
    """
    raw = read_raw(path, upright=False)
    if raw.values.dtype.kind == "f":
        raise BadImageError(f"{path}: expected whole numbers, found {raw.mode}")
    return raw.values if raw.values.dtype == np.uint8 else fit_dtype(path, raw.values, "uint16")


def read_raw(path: File, *, upright: bool = True) -> Raw:
    """Decode any image or array file. Raises `BadImageError`.

    `upright`: refuse an EXIF orientation other than 1 instead of ignoring it.
    """
    data = _read_bytes(path)
    if path.suffix.lower() in ARRAY_EXTENSIONS:
        return _read_array(path, data)
    image, low_bytes = _open(path, data, upright)
    if image.mode in ("1", "LA"):
        image = image.convert("L")
    elif image.mode in ("P", "PA", "RGBA"):
        image = image.convert("RGBA").convert("RGB")
    if image.mode not in NUM_CHANNELS:
        raise BadImageError(
            f"{path}: expected a grey or RGB image, found {image.mode}; convert it to PNG"
        )
    values = np.array(image)
    if low_bytes is not None:
        return Raw(values.astype(np.uint16) << 8 | np.array(low_bytes)[..., :3], "RGB;16")
    return Raw(values, image.mode)


def require_depth(path: File, raw: Raw, dtype: str) -> None:
    """Raise `BadImageError` unless the file has the 8 or 16 bits of `dtype`."""
    if raw.mode == "RGB;16":
        raise BadImageError(
            f"{path}: expected 8 bits a colour channel, found 16; say so with `bits = 16` and a scale"
        )
    if dtype == "uint16" and (raw.values.ndim != 2 or raw.values.dtype == np.uint8):
        raise BadImageError(f"{path}: expected a 16-bit single-channel image, found {raw.mode}")
    if dtype == "uint8" and raw.values.dtype != np.uint8:
        raise BadImageError(f"{path}: expected an 8-bit grey or RGB image, found {raw.mode}")
    if raw.values.dtype.kind == "f":
        raise BadImageError(f"{path}: expected whole numbers, found {raw.mode}; say `bits = 32`")


def to_channels(path: File, raw: Raw, spec: ModalitySpec) -> NDArray[Any]:
    """The values with the channels and the dtype of `spec`. Raises `BadImageError` if they do not fit."""
    values = fit_dtype(path, raw.values, spec.dtype)
    if spec.channels == 3:
        return values if values.ndim == 3 else np.repeat(values[:, :, None], 3, axis=2)
    return one_channel(path, Raw(values, raw.mode))


def one_channel(path: File, raw: Raw) -> NDArray[Any]:
    """(H, W) of a grey image, or of a colour image whose channels are equal."""
    if raw.values.ndim == 2:
        return raw.values
    if (raw.values != raw.values[:, :, :1]).any():
        raise BadImageError(f"{path}: expected a grey image, found colour ({raw.mode})")
    return np.ascontiguousarray(raw.values[:, :, 0])


def fit_dtype(path: File, values: NDArray[Any], dtype: str) -> NDArray[Any]:
    """`values` as `dtype`. Raises `BadImageError` if a value is out of its range."""
    limit = np.iinfo(dtype).max
    if values.dtype != dtype and (values.min() < 0 or values.max() > limit):
        raise BadImageError(
            f"{path}: expected values 0..{limit}, found {values.min()}..{values.max()}"
        )
    return values.astype(dtype)


def read_ids(path: File, channel: int | None = None) -> NDArray[Any]:
    """(H, W) integers of a label file: its one channel, or `channel` of a colour image.

    The ids of a palette image are its indices. Raises `BadImageError`.
    """
    data = _read_bytes(path)
    if path.suffix.lower() in ARRAY_EXTENSIONS:
        values = _read_array(path, data).values
        if values.ndim != 2 or values.dtype.kind not in "ui":
            raise BadImageError(
                f"{path}: expected (H, W) whole numbers, found {values.shape} {values.dtype}"
            )
        return values
    image, _ = _open(path, data)
    if channel is not None and image.mode in ("RGB", "RGBA"):
        return np.asarray(image)[..., channel]
    if image.mode not in ("L", "P", "1", *SIXTEEN_BIT_MODES):
        raise BadImageError(f"{path}: expected a single-channel label, found {image.mode}")
    return np.asarray(image)


def _open(path: File, data: bytes, upright: bool = True) -> tuple[Image.Image, Image.Image | None]:
    """The decoded image, and the low bytes of 16-bit colour, which Pillow drops."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            # Checks a PNG's checksums, which `load` does not; afterwards the image is unusable.
            with Image.open(BytesIO(data)) as probe:
                probe.verify()
            image = Image.open(BytesIO(data))
        wide = _raw_mode(image)  # before `load`, which forgets how the pixels lie in the file
        frames = getattr(image, "n_frames", 1)
        image.load()
        low_bytes = _low_bytes(data, wide) if wide in WIDE_COLOUR else None
        orientation = image.getexif().get(ORIENTATION_TAG, 1)
    except Exception as error:  # a decoder given corrupted bytes may raise anything
        raise BadImageError(f"{path}: expected a whole image, found: {error}") from None
    if frames != 1:
        raise BadImageError(f"{path}: expected one image, found {frames} in the file")
    if upright and orientation != 1:
        raise BadImageError(
            f"{path}: expected upright pixels, found EXIF orientation {orientation}"
        )
    if image.mode in ("RGB", "RGBA") and "16" in wide and low_bytes is None:
        raise BadImageError(f"{path}: expected 8 bits a colour channel, found {wide}")
    return image, low_bytes


def _low_bytes(data: bytes, raw_mode: str) -> Image.Image:
    """The low byte of each 16-bit sample of a colour PNG, as an 8-bit image."""
    image = Image.open(BytesIO(data))
    # Pillow keeps the high byte of each sample. A PNG's samples are big-endian: read as little-endian,
    # their low byte takes its place.
    image.tile = [tile._replace(args=WIDE_COLOUR[raw_mode]) for tile in image.tile]
    image.load()
    return image


def _raw_mode(image: ImageFile.ImageFile) -> str:
    """How the samples lie in the file. The mode does not say: Pillow narrows 16-bit colour silently."""
    args = image.tile[0][3] if image.tile else None
    return args if isinstance(args, str) else str(args[0]) if args else ""


def _read_bytes(path: File) -> bytes:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise BadImageError(f"{path}: cannot be read: {error.strerror}") from None
    if not data:
        raise BadImageError(f"{path}: expected an image, found an empty file")
    return data


def _read_array(path: File, data: bytes) -> Raw:
    """The one array of a `.npy` or `.npz` file: (H, W), (H, W, 1) or (H, W, 3) numbers."""
    try:
        if path.suffix.lower() == ".npz":
            data = _only_member(data)
        values = parse_npy(data)
    except Exception as error:  # corrupted bytes may raise anything
        raise BadImageError(f"{path}: expected one whole array, found: {error}") from None
    if values.ndim == 3 and values.shape[2] == 1:
        values = values[:, :, 0]
    if values.dtype.kind not in "uif" or values.size == 0:
        raise BadImageError(f"{path}: expected numbers, found {values.shape} {values.dtype}")
    if values.ndim != 2 and (values.ndim != 3 or values.shape[2] != 3):
        raise BadImageError(f"{path}: expected (H, W) or (H, W, 3), found {values.shape}")
    return Raw(np.ascontiguousarray(values), f"an array of {values.dtype}")


def _only_member(data: bytes) -> bytes:
    with zipfile.ZipFile(BytesIO(data)) as archive:
        members = archive.infolist()
        if len(members) != 1:
            raise ValueError(f"{len(members)} arrays")
        # By the archive's own index, before unpacking: a few kilobytes can unpack to gigabytes.
        if members[0].file_size > MAX_ARRAY_BYTES:
            raise ValueError(f"an array of {members[0].file_size} bytes")
        return archive.read(members[0])
