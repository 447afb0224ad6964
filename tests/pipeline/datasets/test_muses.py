"""MUSES's layout, projected: conditions, metric LiDAR, and the raw forms refused with the way out."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from pipeline.datasets.muses import MUSES_CARD, MusesAdapter, MusesOptions, range_image
from pipeline.errors import ConfigError, DatasetError, SampleRefused
from pipeline.formats.image_file import BadImageError
from pipeline.modalities import KINDS

SIZE = (4, 6)
SPECS = {kind: KINDS[kind] for kind in ("rgb", "event", "lidar")}
Save = Callable[[Path, np.ndarray], Path]


def write_frame(root: Path, folder: str, name: str, save: Save, projected: str) -> dict:
    """`folder` is <split>/<weather>/<time>."""
    rng = np.random.default_rng([*folder.encode(), *name.encode()])
    metres = np.where(rng.random(SIZE) < 0.5, rng.uniform(1, 90, SIZE), 0)
    lidar = np.dstack([metres, rng.uniform(0, 1, SIZE), rng.uniform(-3, 3, SIZE)])
    parts = {
        "rgb": rng.integers(0, 256, (*SIZE, 3), dtype=np.uint8),
        "event": rng.integers(0, 256, (*SIZE, 3), dtype=np.uint8),
        "label": rng.choice(np.array([*range(19), 255], np.uint8), SIZE),
    }
    save(root / f"frame_camera/{folder}/{name}_frame_camera.png", parts["rgb"])
    save(root / f"{projected}event_camera/{folder}/{name}_event_camera.png", parts["event"])
    code = np.rint((lidar + 100) * 150).astype(np.uint16)
    save(root / f"{projected}lidar/{folder}/{name}_lidar.png", code)
    save(root / f"gt_semantic/{folder}/{name}_gt_labelTrainIds.png", parts["label"])
    save(root / f"gt_semantic/{folder}/{name}_gt_labelIds.png", parts["label"])
    return {**parts, "metres": metres}


@pytest.fixture(params=["projected_to_rgb/", ""])
def frames(request: pytest.FixtureRequest, tmp_path: Path, save: Save) -> tuple[Path, dict]:
    folders = ("train/clear/day", "train/snow/night", "val/fog/day")
    root = tmp_path / "muses"
    return root, {p: write_frame(root, p, "REC0001_f", save, request.param) for p in folders}


def adapter(root: Path, specs: dict = SPECS, **options: object) -> MusesAdapter:
    return MusesAdapter(MusesOptions.model_validate({"root": root, **options}), specs)


def test_pixels_conditions_and_metres(frames: tuple) -> None:
    root, written = frames
    opened = adapter(root)
    assert opened.splits() == ("train", "val")
    samples = [*opened.samples("train"), *opened.samples("val")]
    assert [s.condition for s in samples] == ["clear-day", "snow-night", "fog-day"]
    assert samples[1].key == "train_snow_night_REC0001_f"
    for sample, parts in zip(samples, written.values(), strict=True):
        loaded = opened.load(sample)
        np.testing.assert_array_equal(loaded.arrays["rgb"], parts["rgb"])
        np.testing.assert_array_equal(loaded.arrays["event"], parts["event"])
        np.testing.assert_array_equal(loaded.label, parts["label"])
        millimetres = loaded.arrays["lidar"].astype(float)
        np.testing.assert_array_equal(millimetres > 0, parts["metres"] > 0)
        expected = np.minimum(parts["metres"] * 1000, 65_535)
        np.testing.assert_allclose(millimetres, expected, atol=1000 / 150 / 2 + 0.5)


def test_floating_point_projections_are_read(tmp_path: Path, save: Save) -> None:
    write_frame(tmp_path, "val/fog/day", "r", save, "projected_to_rgb/")
    path = tmp_path / "projected_to_rgb/lidar/val/fog/day/r_lidar.png"
    path.unlink()
    lidar = np.zeros((*SIZE, 3), np.float32)
    lidar[0, :4, 0] = (1.2343, 70, np.nan, -1)
    np.savez(path.with_suffix(".npz"), lidar)
    opened = adapter(tmp_path)
    lidar = opened.load(opened.samples("val")[0]).arrays["lidar"]
    assert lidar[0, :4].tolist() == [1234, 65_535, 0, 0]
    path.with_suffix(".npz").write_bytes(b"PK\x03\x04 damaged")
    with pytest.raises(SampleRefused, match="r_lidar.npz: expected one whole array"):
        opened.load(opened.samples("val")[0])


@pytest.mark.parametrize(("kind", "ending"), [("event", ".h5"), ("lidar", ".bin")])
def test_raw_forms_are_refused_with_the_command(
    tmp_path: Path, save: Save, kind: str, ending: str
) -> None:
    write_frame(tmp_path, "val/fog/day", "r", save, "")
    folder = MUSES_CARD.folders[kind]
    for path in (tmp_path / folder).rglob("*.png"):
        path.rename(path.with_suffix(ending))
    with pytest.raises(DatasetError) as error:
        adapter(tmp_path).splits()
    text = str(error.value)
    assert f"r_{folder}{ending}" in text
    assert (
        f"python scripts/project_sensors_to_rgb.py --muses_root {tmp_path} --event_camera --lidar "
        "--motion_compensation --output_file_type .png" in text
    )


def test_a_split_without_labels_is_not_listed(frames: tuple, save: Save) -> None:
    root, _ = frames
    save(root / "frame_camera/test/rain/day/t_frame_camera.png", np.zeros((*SIZE, 3), np.uint8))
    assert adapter(root).splits() == ("train", "val")


def test_a_frame_without_its_label_is_refused(frames: tuple) -> None:
    root, _ = frames
    (root / "gt_semantic/train/clear/day/REC0001_f_gt_labelTrainIds.png").unlink()
    opened = adapter(root)
    with pytest.raises(SampleRefused, match="no label: expected .*gt_labelTrainIds"):
        opened.load(opened.samples("train")[0])


def test_special_characters_in_the_root_change_nothing(hostile_root: Path, save: Save) -> None:
    parts = write_frame(hostile_root, "val/fog/night", "r", save, "")
    opened = adapter(hostile_root)
    sample = opened.samples("val")[0]
    assert (sample.key, sample.condition) == ("val_fog_night_r", "fog-night")
    np.testing.assert_array_equal(opened.load(sample).arrays["rgb"], parts["rgb"])


def test_8_bit_lidar_images_need_their_own_kind(tmp_path: Path, save: Save) -> None:
    image = np.random.default_rng(0).integers(0, 256, (*SIZE, 3), dtype=np.uint8)
    write_frame(tmp_path, "val/fog/day", "r", save, "")
    path = save(tmp_path / "lidar/val/fog/day/r_lidar.png", image)
    with pytest.raises(BadImageError, match='use kind "lidar_image"'):
        range_image(path)
    opened = adapter(tmp_path, {"lidar": KINDS["lidar_image"]})
    np.testing.assert_array_equal(opened.load(opened.samples("val")[0]).arrays["lidar"], image)


def test_missing_folders_and_unknown_kinds_are_named(frames: tuple, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="'depth'; expected one of rgb, event, lidar"):
        adapter(tmp_path, {"depth": KINDS["depth"]})
    with pytest.raises(DatasetError, match="frame_camera: no such folder"):
        adapter(tmp_path).splits()


def test_the_card_has_the_published_numbers() -> None:
    assert MUSES_CARD.expected["train"] == 1500
    assert len(MUSES_CARD.conditions) == 8
