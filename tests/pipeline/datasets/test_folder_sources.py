"""The folder adapter beyond its default layout: patterns, values, lists, colours, odd files."""

from __future__ import annotations

from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipeline.datasets.folder import FolderAdapter, FolderOptions
from pipeline.errors import ConfigError, DatasetError, SampleRefused
from pipeline.modalities import KINDS

Save = Callable[[Path, np.ndarray], Path]
SIZE = (6, 5)
CLASSES = ("road", "sky", "car")
CITIES = {"train": "aachen", "val": "ulm"}
SOURCES = {
    "rgb": {"glob": "leftImg8bit/{split}/*/*_leftImg8bit.png"},
    "disparity": {"glob": "disparity/{split}/*/*_disparity.png", "fit": "resize"},
    "label": {"glob": "gtFine/{split}/*/*_gtFine_labelIds.png"},
}
SPECS = {"rgb": KINDS["rgb"], "disparity": KINDS["disparity"]}


def adapter(root: Path, specs: dict = SPECS, **options: object) -> FolderAdapter:
    settings = {"root": root, "classes": CLASSES, "sources": SOURCES, **options}
    return FolderAdapter(FolderOptions.model_validate(settings), specs)


def write_city(root: Path, save: Save, split: str, city: str) -> dict[str, np.ndarray]:
    rng = np.random.default_rng([*city.encode()])
    arrays = {
        "rgb": rng.integers(0, 256, (*SIZE, 3), dtype=np.uint8),
        "disparity": rng.integers(0, 32_768, (3, 5), dtype=np.uint16),
        "label": rng.choice(np.array([0, 1, 2, 255], np.uint8), SIZE),
    }
    stem = f"{split}/{city}/{city}_000"
    save(root / f"leftImg8bit/{stem}_leftImg8bit.png", arrays["rgb"])
    save(root / f"disparity/{stem}_disparity.png", arrays["disparity"])
    save(root / f"gtFine/{stem}_gtFine_labelIds.png", arrays["label"])
    save(root / f"gtFine/{stem}_gtFine_color.png", arrays["rgb"])
    return arrays


@pytest.fixture
def cities(tmp_path: Path, save: Save) -> tuple[Path, dict[str, dict[str, np.ndarray]]]:
    return tmp_path, {s: write_city(tmp_path, save, s, city) for s, city in CITIES.items()}


def test_patterns_match_over_folders_and_endings(cities: tuple) -> None:
    root, arrays = cities
    opened = adapter(root)
    for split, city in CITIES.items():
        (sample,) = opened.samples(split)
        assert sample.key == f"{split}_{city}_{city}_000"
        loaded = opened.load(sample)
        np.testing.assert_array_equal(loaded.arrays["rgb"], arrays[split]["rgb"])
        np.testing.assert_array_equal(loaded.label, arrays[split]["label"])
        # 3 rows become 6 by repeating: a disparity is never a mixture.
        doubled = arrays[split]["disparity"].repeat(2, axis=0)
        np.testing.assert_array_equal(loaded.arrays["disparity"], doubled)


def test_another_size_is_refused_unless_asked_for(cities: tuple) -> None:
    root, _ = cities
    strict = {**SOURCES, "disparity": {"glob": SOURCES["disparity"]["glob"]}}
    opened = adapter(root, sources=strict)
    with pytest.raises(SampleRefused, match="expected the label's size 5 x 6, found 5 x 3"):
        opened.load(opened.samples("val")[0])


def test_special_characters_in_the_root_change_nothing(hostile_root: Path, save: Save) -> None:
    arrays = write_city(hostile_root, save, "train", "aachen")
    opened = adapter(hostile_root)
    loaded = opened.load(opened.samples("train")[0])
    np.testing.assert_array_equal(loaded.arrays["rgb"], arrays["rgb"])


def test_conditions_come_from_the_pattern(tmp_path: Path, save: Save) -> None:
    for name in ("rgb", "label"):
        save(tmp_path / name / "train/night/a.png", np.zeros(SIZE, np.uint8))
    sources = {name: {"glob": f"{name}/{{split}}/{{condition}}/*.png"} for name in ("rgb", "label")}
    (sample,) = adapter(tmp_path, {"rgb": KINDS["rgb"]}, sources=sources).samples("train")
    assert (sample.key, sample.condition) == ("train_night_a", "night")


def test_lists_give_the_splits_of_flat_files(tmp_path: Path, save: Save) -> None:
    for name in ("rgb", "label"):
        for stem in ("a", "b", "c"):
            save(tmp_path / name / f"{stem}.png", np.zeros(SIZE, np.uint8))
    (tmp_path / "train.txt").write_text("c.png\na\n")
    (tmp_path / "val.txt").write_text("b\nmissing\n")
    table = {split: tmp_path / f"{split}.txt" for split in ("train", "val")}
    opened = adapter(tmp_path, {"rgb": KINDS["rgb"]}, sources={}, split_lists=table)
    assert [s.key for s in opened.samples("train")] == ["train_c", "train_a"]
    assert opened.load(opened.samples("train")[0]).label.shape == SIZE
    with pytest.raises(SampleRefused, match="no label: expected .* key val_missing"):
        opened.load(opened.samples("val")[1])


def test_labels_in_colours(tmp_path: Path, save: Save) -> None:
    colours = np.zeros((*SIZE, 3), np.uint8)
    colours[1], colours[2], colours[3] = (128, 64, 128), (70, 130, 180), (255, 255, 255)
    save(tmp_path / "rgb/train/a.png", colours)
    save(tmp_path / "label/train/a.png", colours)
    Image.fromarray(colours).quantize(8).save(tmp_path / "label/train/b.png")
    save(tmp_path / "rgb/train/b.png", colours)
    table = {"#804080": 0, "#4682B4": 1, "#000000": 2, "#ffffff": 255}
    opened = adapter(tmp_path, {"rgb": KINDS["rgb"]}, sources={}, label_colours=table)
    for sample in opened.samples("train"):
        label = opened.load(sample).label
        assert label[:, 0].tolist() == [2, 0, 1, 255, 2, 2]
    assert opened.palette == ((128, 64, 128), (70, 130, 180), (0, 0, 0))
    colours[5, 4] = (1, 2, 3)
    save(tmp_path / "label/train/a.png", colours)
    with pytest.raises(SampleRefused, match="label colour #010203 is in no class"):
        opened.load(opened.samples("train")[0])


def test_ids_in_one_channel_of_a_colour_label(tmp_path: Path, save: Save) -> None:
    label = np.zeros((*SIZE, 3), np.uint8)
    label[..., 1], label[..., 2] = 2, 9
    save(tmp_path / "rgb/train/a.png", label)
    save(tmp_path / "label/train/a.png", label)
    opened = adapter(tmp_path, {"rgb": KINDS["rgb"]}, sources={"label": {"channel": "second"}})
    assert (opened.load(opened.samples("train")[0]).label == 2).all()
    plain = adapter(tmp_path, {"rgb": KINDS["rgb"]}, sources={})
    with pytest.raises(SampleRefused, match="single-channel label, found RGB"):
        plain.load(plain.samples("train")[0])


def test_units_and_holes_reach_the_stored_form(tmp_path: Path, save: Save) -> None:
    save(tmp_path / "depth/train/a.png", np.array([[0, 100, 65_535]], np.uint16))
    save(tmp_path / "label/train/a.png", np.zeros((1, 3), np.uint8))
    source = {"depth": {"unit": "cm", "invalid": [65_535]}}
    opened = adapter(tmp_path, {"depth": KINDS["depth"]}, sources=source)
    assert opened.load(opened.samples("train")[0]).arrays["depth"].tolist() == [[0, 1000, 0]]


def _jpeg(image: Image.Image, **options: object) -> bytes:
    file = BytesIO()
    image.save(file, "JPEG", **options)
    return file.getvalue()


def _rotated() -> bytes:
    exif = Image.Exif()
    exif[274] = 6
    return _jpeg(Image.fromarray(np.zeros((*SIZE, 3), np.uint8)), exif=exif)


def _frames(image_format: str) -> bytes:
    file = BytesIO()
    pages = [Image.fromarray(np.full(SIZE, value, np.uint8)) for value in (0, 1)]
    pages[0].save(file, image_format, save_all=True, append_images=pages[1:])
    return file.getvalue()


def _bomb() -> bytes:
    """A PNG of 20000 x 20000 pixels in a few kilobytes."""
    file = BytesIO()
    Image.new("1", (20_000, 20_000)).save(file, "PNG")
    return file.getvalue()


@pytest.mark.parametrize(
    ("name", "data", "reason"),
    [
        ("a.png", b"", "found an empty file"),
        ("a.png", b"\x89PNG\r\n\x1a\n", "expected a whole image"),
        ("a.jpg", _rotated(), "expected upright pixels, found EXIF orientation 6"),
        (
            "a.jpg",
            _jpeg(Image.new("CMYK", SIZE[::-1])),
            "expected a grey or RGB image, found CMYK",
        ),
        ("a.png", _bomb(), "decompression bomb"),
        ("a.tif", _frames("TIFF"), "expected one image, found 2"),
        ("a.png", _frames("PNG"), "expected one image, found 2"),
    ],
    ids=["empty", "header", "rotated", "cmyk", "bomb", "pages", "animation"],
)
def test_odd_files_are_refused_by_name(
    tmp_path: Path, save: Save, name: str, data: bytes, reason: str
) -> None:
    save(tmp_path / "label/train/a.png", np.zeros(SIZE, np.uint8))
    path = tmp_path / "rgb/train" / name
    path.parent.mkdir(parents=True)
    path.write_bytes(data)
    opened = adapter(tmp_path, {"rgb": KINDS["rgb"]}, sources={})
    with pytest.raises(SampleRefused) as error:
        opened.load(opened.samples("train")[0])
    assert error.value.reason.startswith(f"{path}: ")
    assert reason in error.value.reason


def test_16_bit_colour_needs_a_rule(tmp_path: Path, save: Save) -> None:
    colour = np.random.default_rng(2).integers(0, 65_536, (*SIZE, 3), dtype=np.uint16)
    save(tmp_path / "rgb/train/a.png", colour)
    save(tmp_path / "label/train/a.png", np.zeros(SIZE, np.uint8))
    opened = adapter(tmp_path, {"rgb": KINDS["rgb"]}, sources={})
    with pytest.raises(SampleRefused, match="found 16; say so with `bits = 16` and a scale"):
        opened.load(opened.samples("train")[0])
    source = {"rgb": {"bits": 16, "scale": 255 / 65_535}}
    opened = adapter(tmp_path, {"rgb": KINDS["rgb"]}, sources=source)
    rgb = opened.load(opened.samples("train")[0]).arrays["rgb"]
    np.testing.assert_array_equal(rgb, np.rint(colour / 257))


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"sources": {"thermal": {}}}, "sources.thermal: no such modality"),
        ({"sources": {"rgb": {"glob": "x/*.png"}}}, "sources.rgb.glob = .*found neither"),
        ({"sources": {"rgb": {"bits": 16}}}, "sources.rgb.bits: 16-bit files do not fit"),
        ({"split_csv": "s.csv"}, "sources.label.glob = .*found both"),
    ],
)
def test_contradicting_options_are_named(tmp_path: Path, options: dict, problem: str) -> None:
    with pytest.raises(ConfigError, match=problem):
        adapter(tmp_path, **options)


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"sources": {"label": {"scale": 2}}}, "sources.label: only glob and channel"),
        ({"directories": {"rgb": "x"}}, "directories.rgb: sources.rgb.glob gives it as well"),
        ({"label_colours": {"red": 0}}, "label_colours.red: expected #rrggbb"),
        ({"label_colours": {"#ff0000": 3}}, "label_colours.#ff0000 = 3: expected a class id 0..2"),
        ({"label_colours": {"#ff0000": 0}, "remap": {1: 1}}, "give one of the two"),
        ({"split_csv": "s.csv", "split_lists": {"train": "t"}}, "give one of the two"),
    ],
)
def test_invalid_options_are_named(tmp_path: Path, options: dict, problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        adapter(tmp_path, **options)


def test_patterns_with_unequal_stars_are_explained(cities: tuple) -> None:
    root, _ = cities
    uneven = {**SOURCES, "label": {"glob": "gtFine/{split}/aachen/*_gtFine_labelIds.png"}}
    with pytest.raises(
        DatasetError, match=r"sources.rgb.glob: expected as many \* .*\(1\), found 2"
    ):
        adapter(root, sources=uneven).splits()


def test_a_pattern_without_an_existing_folder_is_named(cities: tuple) -> None:
    root, _ = cities
    lost = {**SOURCES, "rgb": {"glob": "left/{split}/*/*_leftImg8bit.png"}}
    expected = r"dataset.sources.rgb.glob: no such directory .*left; found disparity, gtFine, left"
    with pytest.raises(DatasetError, match=expected):
        adapter(root, sources=lost).splits()


def test_unused_options_leave_the_identity_alone(tmp_path: Path) -> None:
    plain = FolderOptions(root=tmp_path, classes=CLASSES)
    assert set(plain.identity()) == {
        "adapter", "classes", "directories", "ignore_ids", "label", "missing", "remap", "root",
        "split_csv",
    }  # fmt: skip
    used = FolderOptions(root=tmp_path, classes=CLASSES, label_colours={"#000000": 0})
    assert used.identity()["label_colours"] == {"#000000": 0}
