"""Label files to class ids, by id or by colour.

An invalid label raises `BadImageError`, whose text names the file, the expected and the actual values;
adapters turn it into `SampleRefused`.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from pipeline.datasets.base import IGNORE_ID, RGB
from pipeline.formats.image_file import BadImageError, File, read_ids, read_raw

LOSSY = frozenset({".jpg", ".jpeg"})
REFUSED_ID = -1


def read_label(
    path: File, id_table: NDArray[np.int16], channel: int | None = None
) -> NDArray[np.uint8]:
    """(H, W) class ids of a label image through `id_table` (see `label_table`).

    The image has one channel, or the ids are in `channel` of a colour image. Raises
    `BadImageError` naming the raw ids that the table refuses.
    """
    _refuse_lossy(path)
    raw = read_ids(path, channel).astype(np.int64)
    if raw.min() < 0 or raw.max() >= len(id_table):
        raise BadImageError(
            f"{path}: label ids from {raw.min()} to {raw.max()}; expected 16-bit ids"
        )
    ids = id_table[raw]
    if ids.min() == REFUSED_ID:
        bad = np.unique(raw[ids == REFUSED_ID])
        raise BadImageError(
            f"{path}: label id {', '.join(map(str, bad[:5]))} is out of range (no class has it); "
            "list it in dataset.ignore_ids or dataset.remap, or fix the label"
        )
    return ids.astype(np.uint8)


def read_colour_label(path: File, colours: dict[RGB, int]) -> NDArray[np.uint8]:
    """(H, W) class ids of a label painted in colours. `BadImageError` names unknown colours."""
    _refuse_lossy(path)
    raw = read_raw(path)
    if raw.values.dtype != np.uint8:
        raise BadImageError(f"{path}: expected an 8-bit colour label, found {raw.mode}")
    channels = np.broadcast_to(np.atleast_3d(raw.values), (*raw.values.shape[:2], 3))
    codes = channels.astype(np.int64) @ np.array([65536, 256, 1])
    # Looked up once per colour, not per pixel: a label has few colours.
    unique, inverse = np.unique(codes, return_inverse=True)
    table = {(red << 16) + (green << 8) + blue: i for (red, green, blue), i in colours.items()}
    unknown = [f"#{code:06x}" for code in unique.tolist() if code not in table]
    if unknown:
        raise BadImageError(
            f"{path}: label colour {', '.join(unknown[:5])} is in no class; list it in "
            "dataset.label_colours (255: ignored), or fix the label"
        )
    ids = np.array([table[code] for code in unique.tolist()], dtype=np.uint8)
    return ids[inverse].reshape(codes.shape)


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


def _refuse_lossy(path: File) -> None:
    # JPEG changes ids at class borders, to ids that often exist: no later check would see it.
    if path.suffix.lower() in LOSSY:
        raise BadImageError(f"{path}: expected a lossless label image, found JPEG")
