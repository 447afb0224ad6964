"""DELIVER's own layout, as the scene generator writes it, comes through pixel by pixel."""

from __future__ import annotations

import os
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from pipeline.config.load import load_config
from pipeline.datasets import CARDS
from pipeline.datasets.deliver import (
    CARLA_STEPS,
    DeliverAdapter,
    DeliverOptions,
    carla_depth,
    corner_case,
)
from pipeline.datasets.synthetic.adapter import scene_index
from pipeline.datasets.synthetic.render import Scene, render_scene
from pipeline.datasets.synthetic.weather import scene_attributes
from pipeline.errors import ConfigError, DatasetError, SampleRefused
from pipeline.formats.image_codec import decode_image, decode_label
from pipeline.formats.image_file import BadImageError
from pipeline.modalities import KINDS
from pipeline.shards.manifest import Manifest
from pipeline.shards.prepare import prepare
from pipeline.shards.sample_encoder import EncodedSample, SampleEncoder
from pipeline.shards.sample_reader import SampleReader, list_samples
from pipeline.workspace import Workspace
from tests.support.deliver_layout import write_deliver

COUNTS = {"train": 6, "val": 3, "test": 2}
SEED = 5
SIZE = 24
SPECS = {
    "rgb": KINDS["rgb"],
    "depth": KINDS["depth"],
    "hha": KINDS["hha"],
    "event": KINDS["event"],
    "lidar": KINDS["lidar_image"],
}


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("tree") / "DELIVER"
    write_deliver(root, SEED, COUNTS, SIZE)
    return root


@pytest.fixture
def root(written: Path, tmp_path: Path) -> Path:
    """A copy that a test may damage."""
    shutil.copytree(written, tmp_path / "DELIVER")
    return tmp_path / "DELIVER"


def adapter(root: Path, specs: dict = SPECS, **options: object) -> DeliverAdapter:
    return DeliverAdapter(DeliverOptions.model_validate({"root": root, **options}), specs)


def scene_of(key: str) -> Scene:
    return render_scene(SEED, int(key.rsplit("_", 1)[1]), SIZE)


def require_scenes(opened: DeliverAdapter) -> None:
    """Every sample of the tree, with the attributes, pixels and labels that were rendered."""
    assert {s: len(opened.samples(s)) for s in opened.splits()} == COUNTS
    for split, count in COUNTS.items():
        samples = opened.samples(split)
        indices = [scene_index(split, number) for number in range(count)]
        assert sorted(int(s.key.rsplit("_", 1)[1]) for s in samples) == indices
        for sample in samples:
            index = int(sample.key.rsplit("_", 1)[1])
            assert (sample.condition, sample.corner_case) == scene_attributes(SEED, index)
            loaded, scene = opened.load(sample), scene_of(sample.key)
            np.testing.assert_array_equal(loaded.arrays["rgb"], scene.rgb)
            np.testing.assert_array_equal(loaded.arrays["depth"], scene.depth)
            np.testing.assert_array_equal(loaded.arrays["event"], scene.event)
            np.testing.assert_array_equal(loaded.arrays["lidar"][..., 0] > 0, scene.lidar > 0)
            np.testing.assert_array_equal(loaded.label, scene.label)


def test_scenes_come_back_with_their_attributes(written: Path) -> None:
    require_scenes(adapter(written))


def test_special_characters_in_the_root_change_nothing(written: Path, hostile_root: Path) -> None:
    shutil.copytree(written, hostile_root, dirs_exist_ok=True)
    require_scenes(adapter(hostile_root))


def test_a_tree_of_links_is_followed(written: Path, tmp_path: Path) -> None:
    for folder in written.iterdir():
        target = tmp_path / "links" / folder.name
        target.mkdir(parents=True)
        for condition in folder.iterdir():
            os.symlink(condition, target / condition.name)
    require_scenes(adapter(tmp_path / "links"))


def test_extra_files_and_folders_are_passed_over(root: Path) -> None:
    scene = next((root / "img").glob("*/*/*"))
    for extra in ("notes.txt", "000000_rgb_left.png", ".DS_Store", "._000000_rgb_front.png"):
        (scene / extra).write_text("x")
    (root / "img" / "README.md").write_text("x")
    (root / "preview").mkdir()
    require_scenes(adapter(root))


def test_hha_and_raw_depth_are_chosen_by_kind(written: Path) -> None:
    opened = adapter(written, {"depth": KINDS["hha"]})
    sample = opened.samples("val")[0]
    image = np.asarray(Image.open(sample.files["depth"]))
    assert "hha" in Path(sample.files["depth"]).relative_to(written).parts
    np.testing.assert_array_equal(opened.load(sample).arrays["depth"], image)


def test_shards_hold_the_source_pixels_exactly(written: Path, tmp_path: Path) -> None:
    (tmp_path / "d.toml").write_text(
        f'name = "d"\nworkspace = "{tmp_path / "ws"}"\n'
        f'[dataset]\nadapter = "deliver"\nroot = "{written}"\n'
        "[modalities]\nrgb = {}\ndepth = {}\nhha = {}\nevent = {}\n"
        'lidar = { kind = "lidar_image" }\n[store]\nshard_size = 4\n'
    )
    config = load_config(tmp_path / "d.toml")
    workspace = Workspace.of(config)
    assert prepare(config, workspace, progress=False).failed == ()
    manifest = Manifest.load(workspace.dataset(config))
    opened = adapter(written)
    source = {s.key: opened.load(s) for split in COUNTS for s in opened.samples(split)}
    reader = SampleReader(config.specs())
    for split, count in COUNTS.items():
        refs = list_samples(manifest, split, tuple(config.specs()))
        assert len(refs) == count
        for ref in refs:
            decoded = reader.read(ref)
            np.testing.assert_array_equal(decoded.label, scene_of(ref.key).label)
            for name, array in source[ref.key].arrays.items():
                np.testing.assert_array_equal(decoded.arrays[name], array)
    rows = manifest.rows("train")
    attributes = [scene_attributes(SEED, int(r["key"].rsplit("_", 1)[1])) for r in rows]
    assert [(r["condition"], r["corner_case"]) for r in rows] == attributes


def test_raw_ids_shift_by_one_and_0_and_255_are_ignored(root: Path) -> None:
    path = Path(adapter(root).samples("val")[0].label or "")
    raw = np.zeros((SIZE, SIZE, 4), np.uint8)
    raw[0, :5, 0] = (0, 1, 25, 255, 7)
    Image.fromarray(raw).save(path)
    opened = adapter(root)
    label = opened.load(opened.samples("val")[0]).label
    assert label[0, :5].tolist() == [255, 0, 24, 255, 6]
    raw[3, 3, 0] = 26
    Image.fromarray(raw).save(path)
    with pytest.raises(SampleRefused, match="label id 26"):
        opened.load(opened.samples("val")[0])


def test_events_of_low_resolution_are_repeated_not_mixed(root: Path) -> None:
    sample = adapter(root).samples("val")[0]
    small = np.random.default_rng(0).integers(0, 256, (SIZE // 4, SIZE // 4, 3), dtype=np.uint8)
    Image.fromarray(small).save(sample.files["event"])
    decoded = adapter(root).load(sample).arrays["event"]
    np.testing.assert_array_equal(decoded, small.repeat(4, axis=0).repeat(4, axis=1))
    Image.fromarray(small).save(sample.files["rgb"])
    with pytest.raises(SampleRefused, match=f"the label's size {SIZE} x {SIZE}, found 6 x 6"):
        adapter(root).load(sample)


def test_a_missing_frame_is_refused_with_the_path_that_was_expected(root: Path) -> None:
    sample = adapter(root).samples("train")[0]
    Path(sample.files["lidar"]).unlink()
    with pytest.raises(SampleRefused) as error:
        adapter(root).load(adapter(root).samples("train")[0])
    assert error.value.reason == f"no lidar: expected {sample.files['lidar']}"
    loaded = adapter(root, missing="allow").load(adapter(root).samples("train")[0])
    assert set(loaded.arrays) == {"rgb", "depth", "hha", "event"}


def test_a_frame_without_rgb_is_listed_and_refused(root: Path) -> None:
    Path(adapter(root).samples("val")[1].files["rgb"]).unlink()
    samples = adapter(root).samples("val")
    assert len(samples) == COUNTS["val"]
    with pytest.raises(SampleRefused, match="no rgb: expected .*_rgb_front.png"):
        adapter(root).load(samples[1])


def test_an_empty_file_is_refused_by_name(root: Path) -> None:
    path = Path(adapter(root).samples("train")[2].files["event"])
    path.write_bytes(b"")
    with pytest.raises(SampleRefused, match=f"{path}: .*empty file"):
        adapter(root).load(adapter(root).samples("train")[2])


@pytest.mark.parametrize("folder", ["lidar", "semantic", "img"])
def test_a_missing_folder_is_named(root: Path, folder: str) -> None:
    shutil.rmtree(root / folder)
    with pytest.raises(DatasetError, match=f"{folder}: no such folder"):
        adapter(root).splits()


def test_unused_folders_may_be_missing(root: Path) -> None:
    shutil.rmtree(root / "lidar")
    assert len(adapter(root, {"rgb": KINDS["rgb"]}).samples("train")) == COUNTS["train"]


def test_a_root_one_level_too_high_is_explained(written: Path) -> None:
    with pytest.raises(DatasetError, match="name the folder that holds img/"):
        adapter(written.parent).splits()


def test_a_kind_that_deliver_lacks_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"modalities.lidar: .* 'lidar'.*to lidar_image"):
        adapter(Path("x"), {"lidar": KINDS["lidar"]})
    with pytest.raises(ConfigError, match="'thermal'"):
        adapter(Path("x"), {"thermal": KINDS["thermal"]})


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("MAP_1_point2/000001", ""),
        ("MAP_1_point2_motionblur/000001", "motionblur"),
        ("MAP_1_point2_MotionBlur/000001", "motionblur"),
        ("MAP_10_point102_over_exposure/000001", "overexposure"),
        ("MAP_1_point2/motionblur", ""),
    ],
)
def test_the_corner_case_is_read_from_the_scene_alone(name: str, expected: str) -> None:
    assert corner_case(name) == expected


@given(st.lists(st.integers(0, CARLA_STEPS), min_size=1, max_size=20))
def test_carla_depth_is_the_formula(tmp_path_factory, codes: list[int]) -> None:
    array = np.array(codes, np.uint32)[None]
    path = tmp_path_factory.mktemp("d") / "d.png"
    bytes_ = np.stack([array & 255, array >> 8 & 255, array >> 16], axis=-1)
    Image.fromarray(bytes_.astype(np.uint8)).save(path)
    expected = [
        0 if code == CARLA_STEPS else min(round(code / CARLA_STEPS * 1e6), 65_535) for code in codes
    ]
    assert carla_depth(path)[0].tolist() == expected


def test_depth_in_another_code_is_refused_with_the_option(root: Path) -> None:
    sample = adapter(root).samples("val")[0]
    millimetres = np.full((SIZE, SIZE), 1234, np.uint16)
    Image.fromarray(millimetres).save(sample.files["depth"])
    with pytest.raises(BadImageError, match='raw_depth = "mm16"'):
        carla_depth(Path(sample.files["depth"]))
    decoded = adapter(root, raw_depth="mm16").load(sample).arrays["depth"]
    np.testing.assert_array_equal(decoded, millimetres)


def test_resizing_is_part_of_the_identity(written: Path) -> None:
    plain, small = DeliverOptions(root=written), DeliverOptions(root=written, size_px=12)
    assert "size_px" not in plain.identity()
    assert small.identity()["size_px"] == 12
    loaded = adapter(written, size_px=12).load(adapter(written).samples("val")[0])
    assert {a.shape[:2] for a in (*loaded.arrays.values(), loaded.label)} == {(12, 12)}


def test_the_card_has_the_published_counts() -> None:
    card = CARDS["deliver"]
    assert Counter(card.expected) == {"train": 3983, "val": 2005, "test": 1897}
    assert card.provenance
    assert card.licence


@given(
    height=st.integers(1, 9),
    width=st.integers(1, 9),
    seed=st.integers(0, 2**16),
    alpha=st.booleans(),
    raw_depth=st.sampled_from(["carla24", "mm16"]),
)
def test_any_pixels_of_any_size_come_back_from_the_stored_bytes(
    tmp_path_factory: pytest.TempPathFactory,
    height: int,
    width: int,
    seed: int,
    alpha: bool,
    raw_depth: str,
) -> None:
    root, rng = tmp_path_factory.mktemp("D"), np.random.default_rng(seed)

    def image(channels: int = 3) -> np.ndarray:
        return rng.integers(0, 256, (height, width, channels), dtype=np.uint8)

    depth = rng.integers(0, 65_535, (height, width), dtype=np.uint16)
    code = np.rint(depth / 1e6 * CARLA_STEPS).astype(np.uint32)
    carla = np.stack([code & 255, code >> 8 & 255, code >> 16], axis=-1).astype(np.uint8)
    written = {
        "img/rgb": image(4 if alpha else 3),
        "hha/depth": image(),
        "depth/depth": carla if raw_depth == "carla24" else depth,
        "event/event": image(),
        "lidar/lidar": image(4 if alpha else 1).squeeze(axis=() if alpha else 2),
        "semantic/semantic": rng.integers(0, 26, (height, width, 4), dtype=np.uint8),
    }
    for name, array in written.items():
        folder, suffix = name.split("/")
        path = root / folder / "fog/val/MAP_1_point1" / f"000001_{suffix}_front.png"
        path.parent.mkdir(parents=True)
        Image.fromarray(array).save(path)
    opened = adapter(root, raw_depth=raw_depth)
    encoded = SampleEncoder(opened, SPECS)(opened.samples("val")[0])
    assert isinstance(encoded, EncodedSample)
    decoded = {n: decode_image(encoded.members[f"{n}.npy.zst"], SPECS[n], n) for n in SPECS}
    np.testing.assert_array_equal(decoded["rgb"], written["img/rgb"][..., :3])
    np.testing.assert_array_equal(decoded["hha"], written["hha/depth"])
    np.testing.assert_array_equal(decoded["depth"], depth)
    np.testing.assert_array_equal(decoded["event"], written["event/event"])
    lidar = written["lidar/lidar"]
    expected = lidar[..., :3] if alpha else np.dstack([lidar] * 3)
    np.testing.assert_array_equal(decoded["lidar"], expected)
    label = decode_label(encoded.members["label.npy.zst"], "label")
    np.testing.assert_array_equal(label, written["semantic/semantic"][..., 0] - np.uint8(1))
