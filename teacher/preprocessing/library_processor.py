"""Stored samples to pixel values by the image processor that a checkpoint brings along.

transformers' own processor is run, so size, crop, kernel, rescaling and normalisation are its own to the
last bit. Rules for what such processors refuse are those of `teacher.preprocessing.images`: one
channel is replicated to three, alpha is dropped, 16-bit values are scaled to the range of 8-bit ones
(as floats, nothing is rounded).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import AutoImageProcessor

from pipeline.errors import CheckpointError
from pipeline.formats.weight_files import first_line
from teacher.preprocessing.config import ImageArray, Sample
from teacher.preprocessing.images import groups_of_one_shape, sample_array


class LibraryProcessor:
    """The image processor of a checkpoint folder."""

    def __init__(self, folder: Path, centre_square: bool) -> None:
        """`centre_square`: cut images to their centred square first. Raises `CheckpointError`."""
        try:
            self._processor: Any = AutoImageProcessor.from_pretrained(  # type: ignore[no-untyped-call]
                folder, local_files_only=True
            )
        except Exception as error:  # whatever a settings file of another form makes it raise
            raise CheckpointError(
                f"{folder}: expected an image processor that transformers knows, found: "
                f"{first_line(error)}. Fetch the checkpoint again."
            ) from error
        self._centre_square = centre_square

    def __call__(self, samples: Sequence[Sample], device: torch.device) -> Tensor:
        """(B, 3, S, S) float32 on `device`. `ValueError` naming the position of an unusable sample."""
        images = [rgb_array(sample_array(sample, i), i) for i, sample in enumerate(samples)]
        if self._centre_square:
            images = [centred_square(image) for image in images]
        out: dict[int, Tensor] = {}
        for indices in groups_of_one_shape(images):
            pixels = self._processor(
                images=[images[i] for i in indices],
                return_tensors="pt",
                input_data_format="channels_last",
                device=device,
            )["pixel_values"]
            out.update(zip(indices, pixels.to(device), strict=True))
        return torch.stack([out[index] for index in range(len(images))])


def rgb_array(image: ImageArray, index: int) -> ImageArray:
    """(H, W, 3) uint8, or float32 in the range of uint8 for 16-bit values."""
    if image.ndim == 2:
        image = np.repeat(image[..., None], 3, axis=2)
    if image.ndim != 3 or image.shape[-1] not in (3, 4):
        raise ValueError(f"sample {index}: expected (H, W) or (H, W, 3), found {image.shape}")
    image = image[..., :3]
    if image.dtype == np.uint16:
        return image.astype(np.float32) * np.float32(255 / 65535)
    return np.ascontiguousarray(image)


def centred_square(image: ImageArray) -> ImageArray:
    """The largest centred square of an (H, W, 3) image."""
    height, width = image.shape[:2]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    return np.ascontiguousarray(image[top : top + side, left : left + side])
