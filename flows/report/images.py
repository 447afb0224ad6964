"""Images of the report: sensor inputs and class maps as small PNG data URIs.

Distances (unit mm) go through a colour map over their own 2nd to 98th percentile, with pixels without
a return almost black; events are red (brighter) and blue (darker) on black; three-channel inputs are
shown unchanged, one-channel ones grey. `ConfigError` if matplotlib is not installed.
"""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pipeline.datasets.base import IGNORE_ID, RGB
from pipeline.modalities import ModalitySpec, to_unit_range

MAX_SIDE_PX = 320
"""Longer side of an embedded image; larger ones are reduced by an integer factor."""
_NO_RETURN = np.array((12, 14, 17), np.uint8)


@dataclass(frozen=True, slots=True)
class EmbeddedImage:
    """One image as the page embeds it."""

    uri: str
    width: int
    height: int
    """Size in pixels, so that the layout does not shift while loading."""
    note: str = ""
    """Meaning of the colours, where it is not obvious."""


def modality_image(array: NDArray[Any], spec: ModalitySpec) -> EmbeddedImage:
    """A stored input, (H, W) or (H, W, 3), as an image of at most `MAX_SIDE_PX`."""
    if spec.unit == "mm":
        return _distance_image(_reduce_nearest_return(array), spec)
    if spec.kind == "event":
        return _encode(Image.fromarray(_event_colours(_reduce_strongest(array))), "red +, blue -")
    if spec.channels == 1:
        array = np.rint(255 * to_unit_range(array, spec)).astype(np.uint8)
    image = Image.fromarray(array)
    return _encode(image.reduce(_factor(array)))


def class_image(ids: NDArray[np.uint8], palette: Sequence[RGB]) -> EmbeddedImage:
    """(H, W) class ids in the palette's colours; ignored pixels are transparent."""
    factor = _factor(ids)
    middle = factor // 2
    image = Image.fromarray(np.ascontiguousarray(ids[middle::factor, middle::factor]))
    colours = [channel for colour in palette for channel in colour]
    image.putpalette(colours + [0] * (768 - len(colours)))
    return _encode(image, transparency=IGNORE_ID)


def _distance_image(array: NDArray[Any], spec: ModalitySpec) -> EmbeddedImage:
    """Near is bright; the note gives the range of the scale in metres."""
    from flows.report.charts import colour_map

    hit = array > 0
    if not hit.any():
        return _encode(
            Image.new("RGB", (array.shape[1], array.shape[0]), tuple(_NO_RETURN)), "no return"
        )
    values = to_unit_range(array, spec)
    near, far = np.percentile(values[hit], (2, 98))
    nearness = 1.0 - np.clip((values - near) / max(far - near, 1e-6), 0.0, 1.0)
    colours = colour_map("viridis", 0.12 + 0.88 * nearness)
    colours[~hit] = _NO_RETURN
    metres = np.percentile(array[hit] / 1000.0, (2, 98))
    return _encode(Image.fromarray(colours), f"{metres[0]:.1f} (bright) to {metres[1]:.1f} m")


def _event_colours(array: NDArray[Any]) -> NDArray[np.uint8]:
    """Channel 0 red, channel 2 blue, stretched so that the strongest events are fully bright."""
    counts = array.astype(np.float32)
    active = counts[counts > 0]
    top = float(np.percentile(active, 95)) if active.size else 1.0
    unit = np.sqrt(np.clip(counts / top, 0.0, 1.0))
    plus, minus = unit[..., 0:1], unit[..., 2:3]
    red, blue = np.array((255, 74, 56)), np.array((64, 132, 255))
    colours: NDArray[np.uint8] = np.clip(plus * red + minus * blue, 0, 255).astype(np.uint8)
    return colours


def _factor(array: NDArray[Any]) -> int:
    height, width = array.shape[:2]
    return max(1, math.ceil(int(max(height, width)) / MAX_SIDE_PX))


def _reduce_strongest(array: NDArray[Any]) -> NDArray[Any]:
    """Block-wise maximum: no event is lost."""
    strongest: NDArray[Any] = _blocks(array, _factor(array), 0).max(axis=(1, 3))
    return strongest


def _reduce_nearest_return(array: NDArray[Any]) -> NDArray[Any]:
    """Block-wise nearest return: a sparse scan stays visible, and a block without returns stays 0."""
    factor = _factor(array)
    if factor == 1:
        return array
    top = np.iinfo(array.dtype).max
    nearest = _blocks(np.where(array == 0, top, array), factor, top).min(axis=(1, 3))
    return np.where(nearest == top, 0, nearest)


def _blocks(array: NDArray[Any], factor: int, fill: int) -> NDArray[Any]:
    """(H, W, ...) to (h, factor, w, factor, ...), filled up at the lower and right edge."""
    height, width = array.shape[:2]
    pads = [(0, -height % factor), (0, -width % factor), *[(0, 0)] * (array.ndim - 2)]
    padded = np.pad(array, pads, constant_values=fill)
    rows, columns = padded.shape[0] // factor, padded.shape[1] // factor
    return padded.reshape(rows, factor, columns, factor, *padded.shape[2:])


def _encode(image: Image.Image, note: str = "", **options: int) -> EmbeddedImage:
    buffer = io.BytesIO()
    image.save(buffer, "PNG", optimize=True, **options)
    text = base64.b64encode(buffer.getvalue()).decode("ascii")
    return EmbeddedImage(f"data:image/png;base64,{text}", image.width, image.height, note)
