"""Label files become class ids; what no class has is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipeline.datasets.base import IGNORE_ID
from pipeline.datasets.label_images import REFUSED_ID, label_table, read_label
from pipeline.formats.image_file import BadImageError

GREY = np.arange(20, dtype=np.uint8).reshape(4, 5)
COLOUR = np.arange(60, dtype=np.uint8).reshape(4, 5, 3)


def saved(path: Path, image: Image.Image) -> Path:
    image.save(path)
    return path


def test_lossy_and_colour_labels_are_refused(tmp_path: Path) -> None:
    table = label_table(3, (255,), {})
    with pytest.raises(BadImageError, match="lossless"):
        read_label(saved(tmp_path / "l.jpg", Image.fromarray(GREY)), table)
    with pytest.raises(BadImageError, match="single-channel label, found RGB"):
        read_label(saved(tmp_path / "l.png", Image.fromarray(COLOUR)), table)


def test_label_table() -> None:
    plain = label_table(3, (255, 9), {})
    assert plain[[0, 2, 3, 9, 255]].tolist() == [0, 2, REFUSED_ID, IGNORE_ID, IGNORE_ID]
    mapped = label_table(3, (255,), {7: 0, 8: IGNORE_ID})
    assert mapped[[0, 7, 8, 255]].tolist() == [REFUSED_ID, 0, IGNORE_ID, IGNORE_ID]
