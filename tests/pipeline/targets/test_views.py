"""Stored views: boxes that depend on nothing but key, number, seed and size; pixels cut exactly."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.config.config import Config
from pipeline.config.load import load_config
from pipeline.errors import ConfigError
from pipeline.targets.lookup import target_request
from pipeline.targets.views import ViewConfig, cut, draw_boxes, view_identity, view_shapes

SETTINGS = ViewConfig(3, 5, (0.5, 1.0))
SIZES = st.integers(1, 3000)


def pixels(box: np.ndarray, height: int, width: int) -> list[int]:
    shares = box[:4].astype(np.float64) * (height, width, height, width)
    return np.floor(shares + 0.5).astype(int).tolist()


@given(key=st.text(max_size=20), height=SIZES, width=SIZES, low=st.floats(0.01, 1.0))
def test_a_view_is_a_square_of_whole_pixels_within_the_image(
    key: str, height: int, width: int, low: float
) -> None:
    for box in draw_boxes(key, height, width, ViewConfig(4, 1, (low, 1.0))):
        top, left, rows, columns = pixels(box, height, width)
        assert rows == columns
        assert 0 <= top <= top + rows <= height
        assert 0 <= left <= left + columns <= width
        short = min(height, width)
        assert max(1, low * short - 1) <= rows <= short
        # The shares are of whole pixels: nothing is left to rounding.
        exact = np.array([top / height, left / width, rows / height, columns / width], np.float32)
        np.testing.assert_array_equal(box[:4], exact)
        assert box[4] in (0.0, 1.0)


def test_boxes_equal_golden_values() -> None:
    # Stored views were cut with these; other numbers need another VIEWS_VERSION.
    boxes = draw_boxes("train_000", 100, 200, SETTINGS)
    expected = [[13, 50, 85, 85, 0], [9, 47, 88, 88, 1], [26, 13, 68, 68, 1]]
    assert [[*pixels(box, 100, 200), int(box[4])] for box in boxes] == expected


def test_another_process_draws_the_same_boxes() -> None:
    code = (
        "from pipeline.targets.views import ViewConfig, draw_boxes\n"
        "print(draw_boxes('a', 90, 70, ViewConfig(3, 5, (0.5, 1.0))).tobytes().hex())\n"
    )
    found = subprocess.run(
        [sys.executable, "-c", code],
        check=True,
        capture_output=True,
        text=True,
        cwd=Path(__file__).parents[3],
    )
    assert found.stdout.strip() == draw_boxes("a", 90, 70, SETTINGS).tobytes().hex()


def test_views_differ_by_number_key_and_seed_and_more_views_keep_the_first() -> None:
    boxes = draw_boxes("a", 1000, 1000, SETTINGS)
    assert len({box.tobytes() for box in boxes}) == 3
    other_seed = draw_boxes("a", 1000, 1000, ViewConfig(3, 6, (0.5, 1.0)))
    for other in (draw_boxes("b", 1000, 1000, SETTINGS), other_seed):
        assert not (other == boxes).all(axis=1).any()
    more = draw_boxes("a", 1000, 1000, ViewConfig(5, 5, (0.5, 1.0)))
    np.testing.assert_array_equal(more[:3], boxes)


def test_draws_are_uniform() -> None:
    settings = ViewConfig(2000, 0, (0.2, 0.9))
    boxes = draw_boxes("a", 10_000, 10_000, settings).astype(np.float64)
    assert abs(boxes[:, 2].mean() - 0.55) < 0.02
    assert abs(boxes[:, 4].mean() - 0.5) < 0.04
    places = boxes[:, :2] / (1 - boxes[:, 2:4])
    assert np.abs(places.mean(axis=0) - 0.5).max() < 0.03
    assert abs(np.corrcoef(places.T)[0, 1]) < 0.07


@pytest.mark.parametrize("shape", [(40, 60), (40, 60, 3), (60, 40)])
def test_cut_gives_the_pixels_of_the_box_mirrored_if_set(shape: tuple[int, ...]) -> None:
    picture = np.arange(np.prod(shape), dtype=np.uint16).reshape(shape)
    seen = set()
    for box in draw_boxes("key", *shape[:2], ViewConfig(12, 0, (0.3, 0.9))):
        top, left, rows, columns = pixels(box, *shape[:2])
        window = picture[top : top + rows, left : left + columns]
        seen.add(bool(box[4]))
        np.testing.assert_array_equal(cut(picture, box), window[:, ::-1] if box[4] else window)
    assert seen == {True, False}


def test_without_views_identities_and_shapes_are_unchanged(tmp_path: Path) -> None:
    assert view_identity(None) == {}
    assert view_shapes({"embedding": (8,)}, None) == {"embedding": (8,)}
    shapes = view_shapes({"embedding": (8,), "patch": (4, 8)}, SETTINGS)
    assert shapes == {"embedding": (3, 8), "patch": (3, 4, 8), "view_box": (3, 5)}
    assert "views" not in target_request(config(tmp_path), "rgb")


def test_each_view_setting_changes_the_request(tmp_path: Path) -> None:
    requests = [
        target_request(config(tmp_path, *overrides), "rgb")["views"]
        for overrides in (
            ["teacher.views=2"],
            ["teacher.views=3"],
            ["teacher.views=2", "teacher.view_seed=1"],
            ["teacher.views=2", "teacher.view_scale=[0.4, 1.0]"],
        )
    ]
    assert all(one != other for i, one in enumerate(requests) for other in requests[:i])


def test_view_scales_beyond_the_image_are_refused_and_views_allow_crops(tmp_path: Path) -> None:
    for scale in ("[0.5, 1.5]", "[0.9, 0.5]", "[0.0, 1.0]"):
        with pytest.raises(ConfigError, match=r"teacher\.view_scale"):
            config(tmp_path, f"teacher.view_scale={scale}")
    with pytest.raises(ConfigError, match=r"train\.crop_px.*teacher\.views"):
        config(tmp_path, "train.crop_px=32")
    assert config(tmp_path, "train.crop_px=32", "teacher.views=2").train.crop_px == 32


def config(folder: Path, *overrides: str) -> Config:
    path = folder / "c.toml"
    path.write_text('name = "c"\ndataset = { adapter = "synthetic" }\nmodalities = { rgb = {} }\n')
    return load_config(path, overrides)
