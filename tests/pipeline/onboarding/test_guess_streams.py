"""Sensors and labels found by the names of folders and files alone."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from pipeline.errors import DatasetError
from pipeline.onboarding.guess_streams import Stream, affixes, find_streams, sensor_word, words


def touch(root: Path, *files: str) -> Path:
    for file in files:
        path = root / file
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (4, 4)).save(path)
    return root


def patterns_of(root: Path) -> dict[str, str]:
    """Name to pattern of what is kept; the label is called `label`."""
    (label, *sensors), _ = find_streams(root)
    return {"label": label.pattern, **{s.name: s.pattern for s in sensors}}


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        (
            ["nir/train/1.png", "red/train/1.png", "label/train/1.png"],
            {"nir": "nir/{split}/*", "red": "red/{split}/*", "label": "label/{split}/*"},
        ),
        (
            ["train/image/a_1.png", "train/gt/a_1.png", "test/image/a_2.png", "test/gt/a_2.png"],
            {"rgb": "{split}/image/*", "label": "{split}/gt/*"},
        ),
        (
            ["1_rgb.png", "1_depth.png", "1_mask.png"],
            {"rgb": "*_rgb", "depth": "*_depth", "label": "*_mask"},
        ),
        (
            ["rgb_1.png", "mask_1.png"],
            {"rgb": "rgb_*", "label": "mask_*"},
        ),
        (
            [
                "leftImg8bit/train/aachen/aachen_000_019_leftImg8bit.png",
                "leftImg8bit/train/bonn/bonn_000_019_leftImg8bit.png",
                "disparity/train/aachen/aachen_000_019_disparity.png",
                "disparity/train/bonn/bonn_000_019_disparity.png",
                "gtFine/train/aachen/aachen_000_019_gtFine_color.png",
                "gtFine/train/bonn/bonn_000_019_gtFine_color.png",
                "gtFine/train/aachen/aachen_000_019_gtFine_labelTrainIds.png",
                "gtFine/train/bonn/bonn_000_019_gtFine_labelTrainIds.png",
            ],
            {
                "rgb": "leftImg8bit/{split}/*/*_leftImg8bit",
                "disparity": "disparity/{split}/*/*_disparity",
                "label": "gtFine/{split}/*/*_gtFine_labelTrainIds",
            },
        ),
        (
            [f"data/{kind}/night/s{n}/1.png" for kind in ("images", "labels") for n in (1, 2)],
            {"rgb": "data/images/{condition}/*/*", "label": "data/labels/{condition}/*/*"},
        ),
        (
            ["left_cam/1.png", "right_cam/1.png", "label/1.png"],
            {"left_cam": "left_cam/*", "right_cam": "right_cam/*", "label": "label/*"},
        ),
        (
            ["sonar/1.png", "label/1.png"],
            {"sonar": "sonar/*", "label": "label/*"},
        ),
    ],
)
def test_streams_of_common_layouts(
    tmp_path: Path, files: list[str], expected: dict[str, str]
) -> None:
    assert patterns_of(touch(tmp_path, *files)) == expected


def test_images_of_something_else_are_left_out(tmp_path: Path) -> None:
    touch(tmp_path, "rgb/1.png", "rgb/2.png", "label/1.png", "label/2.png", "docs/logo.png")
    kept, left_out = find_streams(tmp_path)
    assert [s.pattern for s in kept] == ["label/*", "rgb/*"]
    assert [s.pattern for s in left_out] == ["docs/*"]


def test_files_of_a_stream_are_called_by_split_condition_and_name(tmp_path: Path) -> None:
    root = touch(tmp_path, "rgb/train/night/7.png")
    stream = Stream("rgb/{split}/{condition}/*", "rgb", "rgb")
    assert stream.files(root) == {"train/night/7": [root / "rgb/train/night/7.png"]}


@pytest.mark.parametrize(
    ("stem", "expected"),
    [
        ("000123", ("", "")),
        ("000123_rgb_front", ("", "_rgb_front")),
        ("img_000123", ("img_", "")),
        ("a_1_2_leftImg8bit", ("", "_leftImg8bit")),
        ("tree-depth", ("", "-depth")),
        ("mask.tree", ("mask.", "")),
        ("imgs", ("", "")),
        ("street_12", ("", "")),
    ],
)
def test_streams_by_file_name_affixes(stem: str, expected: tuple[str, str]) -> None:
    assert affixes(stem) == expected


def test_only_whole_words_name_a_kind() -> None:
    assert sensor_word("NIR_warped") == "nir"
    assert sensor_word("labelTrainIds") == "labeltrainids"
    assert sensor_word("colored") is None
    assert "leftimg8bit" in words("x_leftImg8bit")


def test_a_folder_without_labels_or_pairs_lists_its_content(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="found no images"):
        find_streams(tmp_path)
    touch(tmp_path, "rgb/1.png")
    with pytest.raises(DatasetError, match=r"found no labels among rgb/\*"):
        find_streams(tmp_path)
    touch(tmp_path, "label/2.png")
    with pytest.raises(DatasetError, match="need the same name"):
        find_streams(tmp_path)
