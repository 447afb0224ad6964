"""Classes guessed from label files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipeline.errors import DatasetError
from pipeline.onboarding.guess_labels import class_ids, guess_labels


def save(path: Path, array: np.ndarray, palette: list[int] | None = None) -> Path:
    image = Image.fromarray(array)
    if palette:
        image.putpalette(palette)
    image.save(path)
    return path


@pytest.mark.parametrize(
    ("seen", "expected"),
    [
        ({0, 1, 2}, {0: 0, 1: 1, 2: 2, 255: 255}),
        ({0, 1, 3, 255}, {0: 0, 1: 1, 2: 2, 3: 3, 255: 255}),
        ({0, 7, 90}, {0: 0, 7: 1, 90: 2, 255: 255}),
        ({0, 255}, {0: 0, 255: 1}),
        ({1, 2, 3}, {0: 0, 1: 1, 2: 2, 3: 3, 255: 255}),
        ({300, 1000}, {300: 0, 1000: 1, 255: 255}),
    ],
)
def test_ids_become_classes(seen: set[int], expected: dict[int, int]) -> None:
    assert class_ids(seen) == expected


def test_ids_of_all_files_count(tmp_path: Path) -> None:
    paths = [save(tmp_path / f"{n}.png", np.full((4, 5), n, np.uint8)) for n in (0, 1, 2, 3)]
    labels = guess_labels([*paths, tmp_path / "missing.png"])
    assert (labels.num_classes, labels.num_read, labels.smallest) == (4, 4, (4, 5))
    assert (labels.channel, labels.colours, labels.palette) == (None, {}, {})


def test_a_palette_gives_ids_and_colours(tmp_path: Path) -> None:
    ids = np.array([[0, 1], [2, 255]], np.uint8)
    colours = [10, 20, 30, 40, 50, 60, 70, 80, 90] + [0] * (768 - 9)
    labels = guess_labels([save(tmp_path / "a.png", ids, colours)])
    assert labels.num_classes == 3
    assert labels.palette == {0: (10, 20, 30), 1: (40, 50, 60), 2: (70, 80, 90)}


@pytest.mark.parametrize("order", [(0, 0, 0), (0, 3, 3)])
def test_ids_in_the_first_channel(tmp_path: Path, order: tuple[int, int, int]) -> None:
    ids = np.arange(6, dtype=np.uint8).reshape(2, 3)
    layers = [ids, ids, ids, np.zeros_like(ids)]
    image = np.stack([layers[i] for i in order], axis=-1)
    labels = guess_labels([save(tmp_path / "a.png", image)])
    assert (labels.channel, labels.num_classes) == ("first", 6)


def test_painted_labels(tmp_path: Path) -> None:
    image = np.array([[(0, 0, 0), (9, 0, 200)], [(9, 0, 200), (1, 2, 3)]], np.uint8)
    labels = guess_labels([save(tmp_path / "a.png", image)])
    assert labels.colours == {(0, 0, 0): 0, (1, 2, 3): 1, (9, 0, 200): 2}
    assert (labels.num_classes, labels.ids) == (3, {})


def test_photographs_are_not_labels(tmp_path: Path) -> None:
    image = np.random.default_rng(3).integers(0, 256, (40, 40, 3), dtype=np.uint8)
    with pytest.raises(DatasetError, match="more than 255 different values"):
        guess_labels([save(tmp_path / "a.png", image)])
    (tmp_path / "b.png").write_bytes(b"")
    with pytest.raises(DatasetError, match="no label can be read"):
        guess_labels([tmp_path / "b.png"])
