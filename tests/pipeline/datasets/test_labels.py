"""Label settings: ids, colours, palettes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from pipeline.datasets.labels import LabelOptions, LabelReader
from pipeline.formats.image_file import BadImageError


@given(
    ids=st.lists(st.integers(0, 3), min_size=1, max_size=30),
    seed=st.integers(0, 2**16),
)
def test_colours_and_ids_mean_the_same(
    tmp_path_factory: pytest.TempPathFactory, ids: list[int], seed: int
) -> None:
    """A label painted in any distinct colours reads as the ids that were painted."""
    folder = tmp_path_factory.mktemp("l")
    codes = np.random.default_rng(seed).choice(2**24, 4, replace=False)
    hexes = [f"#{code:06x}" for code in codes]
    painted = np.array([[(c >> 16, c >> 8 & 255, c & 255) for c in codes[ids]]], np.uint8)
    Image.fromarray(painted).save(folder / "c.png")
    Image.fromarray(np.array([ids], np.uint8)).save(folder / "i.png")
    names = ("a", "b", "c")
    colours = dict(zip(hexes, (0, 1, 2, 255), strict=True))
    by_colour = LabelOptions(adapter="x", classes=names, label_colours=colours)
    by_id = LabelOptions(adapter="x", classes=names, ignore_ids=(3,))
    np.testing.assert_array_equal(
        LabelReader(by_colour)(folder / "c.png"), LabelReader(by_id)(folder / "i.png")
    )


def test_several_colours_may_be_one_class_and_the_first_shows_it() -> None:
    colours = {"#010203": 1, "#0a0b0c": 1, "#ffffff": 0}
    options = LabelOptions(adapter="x", classes=("a", "b"), label_colours=colours)
    assert options.colours() == ((255, 255, 255), (1, 2, 3))
    own = options.model_copy(update={"palette": ((0, 0, 0), (9, 9, 9))})
    assert own.colours() == ((0, 0, 0), (9, 9, 9))


def test_a_wide_colour_label_is_refused(tmp_path: Path) -> None:
    Image.fromarray(np.zeros((2, 2), np.uint16)).save(tmp_path / "w.png")
    options = LabelOptions(adapter="x", classes=("a",), label_colours={"#000000": 0})
    with pytest.raises(BadImageError, match="expected an 8-bit colour label"):
        LabelReader(options)(tmp_path / "w.png")
