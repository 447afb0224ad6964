"""`init` on made-up trees of many layouts: the config that it writes prepares every sample."""

from __future__ import annotations

import csv
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipeline.config.config import Config
from pipeline.config.load import load_config
from pipeline.errors import ConfigError, DatasetError
from pipeline.onboarding.propose import config_for, propose, write_proposal
from pipeline.shards.manifest import Manifest
from pipeline.shards.prepare import prepare
from pipeline.workspace import Workspace
from tests.support.deliver_layout import write_deliver

Make = Callable[[np.random.Generator, tuple[int, int]], np.ndarray]
SIZE = (40, 56)


def colour(rng: np.random.Generator, size: tuple[int, int]) -> np.ndarray:
    return rng.integers(0, 256, (*size, 3), dtype=np.uint8)


def grey(rng: np.random.Generator, size: tuple[int, int]) -> np.ndarray:
    return rng.integers(20, 230, size, dtype=np.uint8)


def millimetres(rng: np.random.Generator, size: tuple[int, int]) -> np.ndarray:
    return rng.integers(800, 40_000, size).astype(np.uint16)


def disparity(rng: np.random.Generator, size: tuple[int, int]) -> np.ndarray:
    values = rng.integers(300, 28_000, size).astype(np.uint16)
    values[rng.random(size) < 0.3] = 0
    return values


def labels(*ids: int) -> Make:
    def make(rng: np.random.Generator, size: tuple[int, int]) -> np.ndarray:
        return rng.choice(np.array(ids, np.uint8), size)

    return make


def write(path: Path, array: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path)


def write_tree(root: Path, patterns: Mapping[str, Make], names: list[str]) -> None:
    """`{}` in a pattern stands for the name of a sample, `{split}` for its first part."""
    rng = np.random.default_rng([5, len(names)])
    for name in names:
        split, _, rest = name.rpartition("/")
        for pattern, make in patterns.items():
            write(root / pattern.format(rest, split=split), make(rng, SIZE))


def in_splits(**counts: int) -> list[str]:
    return [f"{split}/{n:04d}" for split, count in counts.items() for n in range(count)]


def prepared(root: Path, folder: Path) -> tuple[Config, Manifest]:
    """The dataset made by the proposed config, unchanged; nothing may be refused."""
    path = folder / "made.toml"
    write_proposal(propose(root, progress=False), path)
    config = load_config(path, [f"workspace={folder / 'ws'}", "prepare.workers=1"])
    workspace = Workspace.of(config)
    report = prepare(config, workspace, progress=False)
    assert report.failed == ()
    return config, Manifest.load(workspace.dataset(config))


def test_two_sensors_two_classes_not_square(tmp_path: Path) -> None:
    root = tmp_path / "pairs"
    patterns = {
        "images/{split}/{}.png": colour,
        "thermal/{split}/{}.png": grey,
        "masks/{split}/{}.png": labels(0, 255),
    }
    write_tree(root, patterns, in_splits(train=6, val=3))
    config, manifest = prepared(root, tmp_path)
    assert {n: s.kind for n, s in config.specs().items()} == {"rgb": "rgb", "thermal": "thermal"}
    assert manifest.classes == ("class_0", "class_1")
    assert (manifest.class_pixels("train") > 0).all()
    assert (len(manifest.rows("train")), len(manifest.rows("val"))) == (6, 3)
    assert manifest.statistics("train").ignored_pixels == 0
    assert (config.evaluate.split, config.train.batch_size) == ("val", 6)


def test_three_sensors_19_classes_disparity_with_holes_and_a_csv(tmp_path: Path) -> None:
    root = tmp_path / "city"
    names = [f"{i:03d}" for i in range(12)]
    patterns = {
        "left/{}_left.png": colour,
        "disparity/{}_disparity.png": disparity,
        "nir/{}_nir.png": grey,
        "gt/{}_gt.png": labels(*range(19), 255),
    }
    write_tree(root, patterns, names)
    parts = {"training": names[:8], "validation": names[8:10], "testing": names[10:]}
    with (root / "splits.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["file", "weather", "subset"])
        rows.writerows([f"left/{n}_left.png", "dry", part] for part in parts for n in parts[part])
    config, manifest = prepared(root, tmp_path)
    kinds = {name: spec.kind for name, spec in config.specs().items()}
    assert kinds == {"rgb": "rgb", "disparity": "disparity", "nir": "nir"}
    assert 28_000 <= config.specs()["disparity"].max_value < 35_000
    assert [len(manifest.rows(s)) for s in ("train", "val", "test")] == [8, 2, 2]
    assert len(manifest.classes) == 19
    assert 0.6 < manifest.statistics("train").modalities["disparity"].valid_share < 0.8
    text = (tmp_path / "made.toml").read_text()
    assert "from splits.csv" in text
    assert "30% are 0" in text


def test_depth_in_metres_as_floats_and_split_folders_first(tmp_path: Path) -> None:
    root = tmp_path / "indoor"
    names = in_splits(train=4, test=2)
    write_tree(root, {"{split}/rgb/{}.jpg": colour, "{split}/label/{}.png": labels(0, 1, 2)}, names)
    for index, name in enumerate(names):
        split, stem = name.split("/")
        metres = np.random.default_rng([6, index]).uniform(0.5, 6.0, SIZE).astype(np.float32)
        path = root / split / "depth" / f"{stem}.tif"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(metres).save(path)
    config, manifest = prepared(root, tmp_path)
    assert config.specs()["depth"].kind == "depth"
    depth = manifest.statistics("train").modalities["depth"]
    assert depth.lowest is not None
    assert depth.highest is not None
    assert 450 <= depth.lowest <= 700
    assert 5_500 <= depth.highest <= 6_000


def test_one_folder_without_splits_is_drawn(tmp_path: Path) -> None:
    root = tmp_path / "flat"
    names = [f"scene_{i:02d}" for i in range(20)]
    patterns = {"{}_rgb.png": colour, "{}_depth.png": millimetres, "{}_label.png": labels(0, 7, 9)}
    write_tree(root, patterns, names)
    config, manifest = prepared(root, tmp_path)
    assert [len(manifest.rows(s)) for s in ("train", "val", "test")] == [14, 3, 3]
    assert config.dataset.remap == {0: 0, 7: 1, 9: 2}  # type: ignore[attr-defined]
    assert propose(root, progress=False) == propose(root, progress=False)
    assert "drawn at random" in (tmp_path / "made.toml").read_text()


def test_labels_painted_in_colours(tmp_path: Path) -> None:
    root = tmp_path / "painted"
    palette = np.array([(0, 0, 0), (128, 0, 0), (0, 128, 64)], np.uint8)

    def painted(rng: np.random.Generator, size: tuple[int, int]) -> np.ndarray:
        return palette[rng.integers(0, 3, size)]

    patterns = {"image/{split}/{}.png": colour, "label/{split}/{}.png": painted}
    write_tree(root, patterns, in_splits(train=4, val=2))
    _, manifest = prepared(root, tmp_path)
    assert manifest.classes == ("colour_000000", "colour_008040", "colour_800000")
    assert manifest.description["palette"] == [[0, 0, 0], [0, 128, 64], [128, 0, 0]]
    assert (manifest.class_pixels("train") > 0).all()


def test_samples_without_a_sensor_or_a_label(tmp_path: Path) -> None:
    root = tmp_path / "holes"
    patterns = {
        "rgb/{split}/{}.png": colour,
        "nir/{split}/{}.png": grey,
        "label/{split}/{}.png": labels(0, 1),
    }
    write_tree(root, patterns, in_splits(train=8, val=3))
    (root / "nir/train/0002.png").unlink()
    (root / "label/train/0003.png").unlink()
    config, manifest = prepared(root, tmp_path)
    assert config.dataset.missing == "allow"  # type: ignore[attr-defined]
    assert manifest.statistics("train").availability == {("nir", "rgb"): 6, ("rgb",): 1}


def test_class_names_and_hostile_root(tmp_path: Path) -> None:
    root = tmp_path / 'img_rgb sun "ü" \\ {split}'
    patterns = {"rgb/{split}/{}.png": colour, "label/{split}/{}.png": labels(0, 1, 2)}
    write_tree(root, patterns, in_splits(train=4, val=2))
    (root / "classes.txt").write_text('road\nwall "b"\ncar\n')
    _, manifest = prepared(root, tmp_path)
    assert manifest.classes == ("road", 'wall "b"', "car")
    assert "intra" not in (tmp_path / "made.toml").read_text()


def test_deliver_is_recognised(tmp_path: Path) -> None:
    root = tmp_path / "DELIVER"
    write_deliver(root, 0, {"train": 3, "val": 2}, size_px=32)
    config, manifest = prepared(root, tmp_path)
    assert config.dataset.adapter == "deliver"
    kinds = {name: spec.kind for name, spec in config.specs().items()}
    assert kinds == {"rgb": "rgb", "depth": "hha", "event": "event", "lidar": "lidar_image"}
    assert manifest.num_samples == 5


def test_a_config_is_not_overwritten_without_force(tmp_path: Path) -> None:
    root = tmp_path / "flat"
    patterns = {"{}_rgb.png": colour, "{}_label.png": labels(0, 1)}
    write_tree(root, patterns, [f"{i:02d}" for i in range(4)])
    proposal = propose(root, progress=False)
    path = tmp_path / "a.toml"
    (tmp_path / "a-splits.csv").write_text("mine")
    with pytest.raises(ConfigError, match="a-splits.csv already exists. Use --force"):
        write_proposal(proposal, path)
    assert not path.exists()
    assert write_proposal(proposal, path, force=True) == [path, tmp_path / "a-splits.csv"]
    assert load_config(path) is not None


@pytest.mark.parametrize(
    ("patterns", "words"),
    [
        ({}, "found no images"),
        ({"rgb/{}.png": colour}, "found no labels among rgb/"),
        ({"rgb/{}_x1.png": colour, "label/{}.png": labels(0)}, "need the same name"),
    ],
)
def test_a_folder_without_a_dataset_is_refused(
    tmp_path: Path, patterns: dict[str, Make], words: str
) -> None:
    root = tmp_path / "odd"
    root.mkdir()
    write_tree(root, patterns, ["a", "b", "c"])
    with pytest.raises(DatasetError, match=words):
        propose(root, progress=False)


def test_too_few_samples_and_unknown_datasets(tmp_path: Path) -> None:
    root = tmp_path / "two"
    write_tree(root, {"rgb/{}.png": colour, "label/{}.png": labels(0, 1)}, ["a", "b"])
    with pytest.raises(DatasetError, match="at least 3"):
        propose(root, progress=False)
    with pytest.raises(ConfigError, match="expected one of folder, deliver"):
        propose(root, "coco", progress=False)
    with pytest.raises(DatasetError, match="no such folder"):
        config_for(tmp_path / "none")


def test_large_images_are_shrunk_and_the_lscd_terms_stay_on(tmp_path: Path) -> None:
    root = tmp_path / "large"
    rng = np.random.default_rng(2)
    for name in in_splits(train=2, val=1):
        split, stem = name.split("/")
        write(root / "rgb" / split / f"{stem}.png", colour(rng, (600, 800)))
        write(root / "label" / split / f"{stem}.png", labels(0, 1)(rng, (600, 800)))
    config, manifest = prepared(root, tmp_path)
    row = manifest.rows("train")[0]
    assert (row["height"], row["width"]) == (384, 512)
    assert config.train.crop_px is None
    assert config.student.lscd.inter > 0
