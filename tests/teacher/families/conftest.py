"""Images as shards hold them, and the library's own processing of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from transformers import AutoImageProcessor


@pytest.fixture
def images() -> list[NDArray[np.uint8]]:
    """Two sizes, upright and wide, and a square."""
    rng = np.random.default_rng([3])
    sizes = ((40, 50), (61, 47), (48, 48), (40, 50))
    return [rng.integers(0, 256, (*size, 3), dtype=np.uint8) for size in sizes]


def library_pixels(folder: Path, image: Any) -> torch.Tensor:
    """(3, S, S) of one image, by the checkpoint's own processor."""
    processor = AutoImageProcessor.from_pretrained(folder, local_files_only=True)
    pixels: torch.Tensor = processor(images=image, return_tensors="pt")["pixel_values"][0]
    return pixels


def centre(image: NDArray[Any]) -> NDArray[Any]:
    """The centred square."""
    side = min(image.shape[:2])
    top, left = (image.shape[0] - side) // 2, (image.shape[1] - side) // 2
    return image[top : top + side, left : left + side]
