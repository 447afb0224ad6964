"""The written tree is DELIVER's: names, folders, encodings, and it decodes to the scenes themselves."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipeline.datasets.synthetic.adapter import scene_index
from pipeline.datasets.synthetic.render import render_scene
from pipeline.datasets.synthetic.weather import CONDITIONS, CORNER_CASES, scene_attributes
from pipeline.errors import DatasetError
from tests.support.deliver_layout import write_deliver

COUNTS = {"train": 6, "val": 2, "test": 1}
SIZE = 32
NAME = re.compile(
    rf"img/({'|'.join(CONDITIONS)})/(train|val|test)/MAP_\d+_point\d+(_({'|'.join(CORNER_CASES)}))?"
    r"/\d{6}_rgb_front\.png"
)
MODES = {
    "img": "RGBA",
    "hha": "RGB",
    "depth": "RGBA",
    "event": "RGB",
    "lidar": "L",
    "semantic": "RGBA",
}


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("DELIVER")
    assert write_deliver(folder, 5, COUNTS, SIZE) == 9
    return folder


def _frames(root: Path) -> list[Path]:
    return sorted((root / "img").glob("*/*/*/*.png"))


def _other(path: Path, folder: str, suffix: str) -> Path:
    """As the loader does it: text replacement in the whole path."""
    return Path(str(path).replace("/img", f"/{folder}").replace("_rgb", f"_{suffix}"))


def _scene(path: Path):
    return render_scene(5, int(path.name[:6]), SIZE)


def test_names_and_counts(root):
    frames = _frames(root)
    names = [path.relative_to(root).as_posix() for path in frames]
    assert all(NAME.fullmatch(name) for name in names)
    assert {s: sum(f"/{s}/" in n for n in names) for s in COUNTS} == COUNTS
    assert sorted(path.name for path in root.iterdir()) == sorted(MODES)


def test_every_modality_is_where_the_loader_looks(root):
    suffixes = {
        "hha": "depth",
        "depth": "depth",
        "event": "event",
        "lidar": "lidar",
        "semantic": "semantic",
    }
    for path in _frames(root):
        for folder, suffix in suffixes.items():
            with Image.open(_other(path, folder, suffix)) as image:
                assert image.mode == MODES[folder]
                assert image.size == (SIZE, SIZE)
    assert len(list(root.rglob("*.png"))) == 9 * len(MODES)


def test_folder_names_carry_condition_and_corner_case(root):
    for path in _frames(root):
        condition, corner_case = scene_attributes(5, int(path.name[:6]))
        assert path.parts[-4] == condition
        assert path.parts[-2].endswith(f"_{corner_case}" if corner_case else path.parts[-2][-2:])
        assert any(case in path.parts[-2] for case in CORNER_CASES) == bool(corner_case)


def test_semantic_is_the_label_plus_one_in_channel_zero(root):
    for path in _frames(root):
        raw = np.asarray(Image.open(_other(path, "semantic", "semantic")))
        assert raw[..., 1:3].max() == 0
        # The loader's rule: 255 counts as 0, then minus one with wrap-around.
        decoded = np.where(raw[..., 0] == 255, 0, raw[..., 0]).astype(np.uint8) - np.uint8(1)
        assert np.array_equal(decoded, _scene(path).label)


def test_images_decode_to_the_scene(root):
    path = _frames(root)[0]
    scene = _scene(path)
    rgb = np.asarray(Image.open(path))
    assert np.array_equal(rgb[..., :3], scene.rgb)
    assert (rgb[..., 3] == 255).all()
    assert np.array_equal(np.asarray(Image.open(_other(path, "event", "event"))), scene.event)
    lidar = np.asarray(Image.open(_other(path, "lidar", "lidar")))
    assert np.array_equal(lidar > 0, scene.lidar > 0)
    code = np.asarray(Image.open(_other(path, "depth", "depth"))).astype(float)[..., :3]
    metres = code @ [1, 256, 65536] / (256**3 - 1) * 1000
    seen = scene.depth > 0
    assert metres[seen] == pytest.approx(scene.depth[seen] / 1000, abs=1e-3)
    assert metres[~seen] == pytest.approx(1000)


def test_frames_are_the_scenes_of_the_synthetic_data_set(root):
    written = sorted(int(path.name[:6]) for path in _frames(root))
    assert written == sorted(scene_index(s, n) for s, count in COUNTS.items() for n in range(count))


@pytest.mark.parametrize("folder", ["imgs", "a_rgb_b"])
def test_roots_that_break_the_loader_are_refused(tmp_path, folder):
    with pytest.raises(DatasetError, match="Choose another folder"):
        write_deliver(tmp_path / folder, 0, {"train": 1}, 16)
    assert not (tmp_path / folder).exists()


def test_unknown_split_is_refused(tmp_path):
    with pytest.raises(DatasetError, match="unknown split 'dev'"):
        write_deliver(tmp_path / "D", 0, {"dev": 1}, 16)
