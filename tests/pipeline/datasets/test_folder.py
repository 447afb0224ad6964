"""The folder adapter: matching, splits, and every bad input refused by name."""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipeline.config.load import load_config
from pipeline.datasets.folder import FolderAdapter, FolderOptions
from pipeline.datasets.labels import spread_palette
from pipeline.datasets.tree import make_key
from pipeline.errors import ConfigError, DatasetError, SampleRefused
from pipeline.modalities import KINDS

SIZE = (6, 5)
CLASSES = ("soil", "crop", "weed")
SPECS = {"rgb": KINDS["rgb"], "nir": KINDS["nir"]}


def save(path: Path, array: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path)
    return path


def write(root: Path, name: str) -> None:
    """One good sample; `name` is `<split>/<stem>` or `<stem>`."""
    rng = np.random.default_rng([len(name), *name.encode()])
    save(root / "rgb" / f"{name}.png", rng.integers(0, 256, (*SIZE, 3), dtype=np.uint8))
    save(root / "nir" / f"{name}.png", rng.integers(0, 256, SIZE, dtype=np.uint8))
    save(root / "label" / f"{name}.png", rng.integers(0, 3, SIZE, dtype=np.uint8))


def adapter(root: Path, **options: object) -> FolderAdapter:
    return FolderAdapter(
        FolderOptions.model_validate({"root": root, "classes": CLASSES, **options}), SPECS
    )


def refusal(root: Path, key: str, split: str = "train", **options: object) -> str:
    """The reason for which `key` is refused, with any other sample of the split loading well."""
    opened = adapter(root, **options)
    reasons = {}
    for sample in opened.samples(split):
        try:
            opened.load(sample)
        except SampleRefused as error:
            reasons[error.key] = error.reason
    assert set(reasons) == {key}
    return reasons[key]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for name in ("train/a", "train/b", "val/c"):
        write(tmp_path, name)
    return tmp_path


def test_samples_are_matched_by_stem_over_different_endings(root: Path) -> None:
    image = Image.open(root / "rgb/train/a.png")
    image.save(root / "rgb/train/a.TIFF")
    (root / "rgb/train/a.png").unlink()
    opened = adapter(root)
    sample = opened.samples("train")[0]
    assert sample.key == "train_a"
    assert sample.files == {
        "rgb": str(root / "rgb/train/a.TIFF"),
        "nir": str(root / "nir/train/a.png"),
    }
    loaded = opened.load(sample)
    np.testing.assert_array_equal(loaded.arrays["rgb"], np.asarray(image))
    np.testing.assert_array_equal(loaded.label, np.asarray(Image.open(sample.label)))


def test_splits_are_sub_directories_in_the_usual_order(root: Path) -> None:
    for split in ("test", "extra"):
        write(root, f"{split}/x")
    (root / "rgb/.cache").mkdir()
    (root / "rgb/train/.hidden.png").touch()
    (root / "rgb/train/notes.txt").touch()
    opened = adapter(root)
    assert opened.splits() == ("train", "val", "test", "extra")
    assert [s.key for s in opened.samples("train")] == ["train_a", "train_b"]


def test_split_csv_assigns_flat_files(tmp_path: Path) -> None:
    for stem in ("a", "b", "c"):
        write(tmp_path, stem)
    table = tmp_path / "splits.csv"
    table.write_text("key,split\nc,train\na,train\nb,val\n")
    opened = adapter(tmp_path, split_csv=table)
    assert [s.key for s in opened.samples("train")] == ["train_c", "train_a"]
    assert opened.load(opened.samples("val")[0]).label.shape == SIZE


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("name,fold\na,train\n", "expected the header key,split"),
        ("key,split\na,train\na,val\n", r"splits.csv:3: key 'a' is on line 2"),
        ("key,split\na,\n", "splits.csv:2: expected a key and a split"),
        ("key,split\n", "lists no samples"),
        ("key,split\na,tr/ain\n", "split 'tr/ain'"),
    ],
)
def test_a_bad_split_csv_is_refused_by_line(root: Path, text: str, expected: str) -> None:
    table = root / "splits.csv"
    table.write_text(text)
    with pytest.raises(DatasetError, match=expected):
        adapter(root, split_csv=table).splits()


def test_a_missing_split_csv_is_named(root: Path) -> None:
    with pytest.raises(DatasetError, match="no such file .*none.csv"):
        adapter(root, split_csv=root / "none.csv").splits()


def test_a_csv_key_never_leaves_the_directories(root: Path) -> None:
    table = root / "splits.csv"
    table.write_text("key,split\n../rgb/train/a,train\n")
    opened = adapter(root, split_csv=table)
    with pytest.raises(SampleRefused, match="no label"):
        opened.load(opened.samples("train")[0])


def test_missing_modality_is_refused_by_name_or_allowed(root: Path) -> None:
    (root / "nir/train/b.png").unlink()
    assert "no nir: expected an image in " in refusal(root, "train_b")
    opened = adapter(root, missing="allow")
    loaded = opened.load(opened.samples("train")[1])
    assert set(loaded.arrays) == {"rgb"}
    (root / "rgb/train/b.png").unlink()
    assert "no rgb" in refusal(root, "train_b", missing="allow")


def test_missing_label_is_refused(root: Path) -> None:
    (root / "label/train/a.png").unlink()
    assert "no label" in refusal(root, "train_a")


def test_a_dangling_link_counts_as_missing_and_a_good_one_is_followed(root: Path) -> None:
    moved = root / "elsewhere.png"
    (root / "nir/train/a.png").rename(moved)
    (root / "nir/train/a.png").symlink_to(moved)
    assert adapter(root).load(adapter(root).samples("train")[0]).label.shape == SIZE
    moved.unlink()
    assert "no nir" in refusal(root, "train_a")


@pytest.mark.parametrize("kept", [0, 8, 40, 60])
def test_a_truncated_png_is_refused_by_name(root: Path, kept: int) -> None:
    path = root / "rgb/train/a.png"
    path.write_bytes(path.read_bytes()[:kept])
    assert str(path) in refusal(root, "train_a")


def test_every_truncation_of_a_label_is_refused(root: Path) -> None:
    path = root / "label/train/a.png"
    data = path.read_bytes()
    for kept in range(len(data) - 12):  # the last 12 bytes only say that the file ends
        path.write_bytes(data[:kept])
        assert str(path) in refusal(root, "train_a")


def test_a_flipped_byte_of_pixel_data_is_refused(root: Path) -> None:
    path = root / "nir/train/a.png"
    data = bytearray(path.read_bytes())
    data[data.index(b"IDAT") + 10] ^= 1
    path.write_bytes(data)
    assert str(path) in refusal(root, "train_a")


def test_a_text_file_that_calls_itself_png_is_refused(root: Path) -> None:
    path = root / "nir/train/a.png"
    path.write_text("not an image")
    assert "cannot identify" in refusal(root, "train_a")


def test_size_mismatch_is_refused(root: Path) -> None:
    path = save(root / "nir/train/a.png", np.zeros((6, 4), np.uint8))
    assert refusal(root, "train_a") == f"{path}: expected the label's size 5 x 6, found 4 x 6"


def test_label_id_out_of_range_is_named(root: Path) -> None:
    label = np.zeros(SIZE, np.uint8)
    label[2, 2] = 7
    path = save(root / "label/train/a.png", label)
    assert f"{path}: label id 7 is out of range" in refusal(root, "train_a")


def test_ignore_ids_and_remap(root: Path) -> None:
    label = np.zeros(SIZE, np.uint8)
    label[0], label[1], label[2] = 7, 9, 255
    save(root / "label/train/a.png", label)
    opened = adapter(root, ignore_ids=[255, 9], remap={0: 1, 1: 2, 2: 0, 7: 2})
    loaded = opened.load(opened.samples("train")[0]).label
    assert loaded[:, 0].tolist() == [2, 255, 255, 1, 1, 1]
    assert "label id 7" in refusal(root, "train_a", ignore_ids=[255, 9], remap={0: 1, 1: 2, 2: 0})


def test_16_bit_and_palette_labels_give_raw_ids(root: Path) -> None:
    save(root / "label/train/a.png", np.full(SIZE, 300, np.uint16))
    image = Image.fromarray(np.full(SIZE, 2, np.uint8)).convert("P")
    image.putdata([2] * 30)
    image.putpalette([9, 9, 9] * 3)
    image.save(root / "label/train/b.png")
    opened = adapter(root, remap={300: 1, 0: 0, 1: 1, 2: 2})
    labels = [opened.load(s).label for s in opened.samples("train")]
    assert [np.unique(label).tolist() for label in labels] == [[1], [2]]


def test_a_duplicate_stem_is_refused_with_both_names(root: Path) -> None:
    image = Image.open(root / "rgb/train/a.png")
    image.save(root / "rgb/train/a.bmp")
    before = adapter(root).samples("train")[0].version()
    reason = refusal(root, "train_a")
    assert str(root / "rgb/train/a.bmp") in reason
    assert str(root / "rgb/train/a.png") in reason
    (root / "rgb/train/a.bmp").unlink()
    assert adapter(root).samples("train")[0].version() != before


def test_stems_that_give_one_key_are_refused_with_both_names(root: Path) -> None:
    write(root, "train/x.y")
    write(root, "train/x y")
    before = {s.key: s.version() for s in adapter(root).samples("train")}
    reason = refusal(root, "train_x_y")
    assert "train/x.y" in reason
    assert "train/x y" in reason
    for name in ("rgb", "nir", "label"):
        (root / name / "train/x.y.png").unlink()
    after = {s.key: s.version() for s in adapter(root).samples("train")}
    assert after["train_x_y"] != before["train_x_y"]
    assert adapter(root).load(adapter(root).samples("train")[2]).label.shape == SIZE


def test_keys_are_unique_over_splits(tmp_path: Path) -> None:
    write(tmp_path, "a/b_c")
    write(tmp_path, "a_b/c")
    write(tmp_path, "a_b/d")
    opened = adapter(tmp_path)
    keys = [s.key for split in opened.splits() for s in opened.samples(split)]
    assert keys == ["a_b_c", "a_b_d"]
    assert "a/b_c and a_b/c give the same key" in refusal(tmp_path, "a_b_c", split="a")


@pytest.mark.parametrize(
    ("stem", "key"),
    [("a.b c/d", "t_a_b_c_d"), ("grüße", "t_gru00fcu00dfe"), ("..", "t___"), ("A-1", "t_A-1")],
)
def test_keys_are_safe(stem: str, key: str) -> None:
    assert make_key("t", stem) == key


def test_an_empty_split_is_refused_by_name(root: Path) -> None:
    for name in ("rgb", "nir", "label"):
        (root / name / "test").mkdir()
    with pytest.raises(
        DatasetError, match=r"split 'test' is empty \(splits with samples: train, val"
    ):
        adapter(root).samples("test")
    with pytest.raises(DatasetError, match="split 'tset'"):
        adapter(root).samples("tset")


def test_missing_root_and_directories_are_named(root: Path) -> None:
    with pytest.raises(DatasetError, match=r"dataset.root: no such folder .*nowhere"):
        adapter(root / "nowhere").splits()
    with pytest.raises(DatasetError, match=r"dataset.directories.nir: .*found label, nir, rgb"):
        adapter(root, directories={"nir": "infrared"}).splits()
    with pytest.raises(DatasetError, match=r"dataset.label: .*masks"):
        adapter(root, label="masks").splits()
    with pytest.raises(ConfigError, match=r"dataset.directories.thermal.*expected one of nir, rgb"):
        adapter(root, directories={"thermal": "t"})


def test_flat_files_without_a_csv_are_explained(tmp_path: Path) -> None:
    write(tmp_path, "a")
    with pytest.raises(DatasetError, match="one sub-directory per split"):
        adapter(tmp_path).splits()


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"remap": {4: 3}}, "remap.4 = 3: expected a class id 0..2 or 255"),
        ({"remap": {255: 1}}, "remap.255"),
        ({"classes": ["a", "a"]}, "'a' is listed twice"),
        ({"palette": [[0, 0, 0]]}, "expected 3 colours, found 1"),
        ({"ignore_ids": [-1]}, "label id -1"),
    ],
)
def test_bad_options_name_the_field(root: Path, options: dict, expected: str) -> None:
    with pytest.raises(ValueError, match=expected):
        adapter(root, **options)


def test_refusals_cross_process_boundaries(root: Path) -> None:
    Image.open(root / "rgb/train/a.png").save(root / "rgb/train/a.bmp")
    opened = adapter(root)
    sample = opened.samples("train")[0]
    for carried in (pickle.loads(pickle.dumps(opened)), adapter(root)):  # noqa: S301
        with pytest.raises(SampleRefused, match="keep one"):
            carried.load(sample)


def test_a_palette_has_one_distinct_colour_a_class() -> None:
    colours = spread_palette(25)
    assert len(set(colours)) == 25


def test_the_palette_does_not_change_the_identity(root: Path) -> None:
    plain = FolderOptions(root=root, classes=CLASSES)
    coloured = FolderOptions(root=root, classes=CLASSES, palette=spread_palette(3))
    assert plain.identity() == coloured.identity()
    assert plain.identity() != FolderOptions(root=root, classes=("a", "b", "c")).identity()


def test_real_tiles(shared: Callable[[str], Path], tmp_path: Path) -> None:
    tiles = shared("data/weedmap-rededge-mini")
    config = tmp_path / "tiles.toml"
    config.write_text(
        f'name = "tiles"\n[dataset]\nadapter = "folder"\nroot = "{os.fspath(tiles)}"\n'
        'classes = ["background", "crop", "weed"]\n'
        '[modalities.nir]\n[modalities.green]\nkind = "gray"\n[modalities.red]\nkind = "gray"\n'
    )
    loaded = load_config(config)
    opened = FolderAdapter(loaded.dataset, loaded.specs())
    assert {s: len(opened.samples(s)) for s in opened.splits()} == {
        "train": 64,
        "val": 20,
        "test": 20,
    }
    for sample in opened.samples("val"):
        loaded = opened.load(sample)
        assert {a.shape for a in loaded.arrays.values()} == {(360, 480)}
        assert set(np.unique(loaded.label)) <= {0, 1, 2, 255}
