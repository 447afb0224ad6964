"""The saved student against the run that it comes from, on real files."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipeline.config.config import Config
from pipeline.errors import CheckpointError, ConfigError, DatasetError
from student.evaluation.sliding_window import Window
from student.inference.segmenter import CONFIG, WEIGHTS, Segmenter

TrainedField = tuple[Config, Path, Path]


def test_files_go_through_the_rules_of_the_data_set(trained_field: TrainedField) -> None:
    _, run, tree = trained_field
    segmenter = Segmenter.from_run(run)
    stored = segmenter.read("nir", tree / "nir/val/0.png")
    percent = np.asarray(Image.open(tree / "nir/val/0.png"))
    np.testing.assert_array_equal(stored, np.rint(percent * 655.35).astype(np.uint16))


@pytest.mark.parametrize("names", [("rgb",), ("nir",), ("nir", "rgb")])
def test_any_subset_gives_what_the_evaluated_model_gives(
    trained_field: TrainedField, names: tuple[str, ...]
) -> None:
    _, run, tree = trained_field
    segmenter = Segmenter.from_run(run)
    segmentation = segmenter.segment({name: tree / name / "val/0.png" for name in names})
    assert segmentation.ids.shape == (40, 56)
    assert segmentation.logits.shape == (4, 40, 56)
    assert set(segmentation.modalities) == set(names)
    key = next(p for p in (run / "pictures").iterdir() if p.name.endswith("_0"))
    stem = "+".join(name for name in ("rgb", "nir") if name in names)
    evaluated = np.asarray(Image.open(key / f"{stem}.png"))
    # Evaluation takes max over logits of another batch size; ties aside it is the same prediction.
    assert (segmentation.ids == evaluated).mean() > 0.999


def test_saved_and_loaded_it_says_the_same(trained_field: TrainedField, tmp_path: Path) -> None:
    _, run, tree = trained_field
    first = Segmenter.from_run(run)
    first.save_pretrained(tmp_path / "model")
    again = Segmenter.from_pretrained(tmp_path / "model", device="cpu")
    scene = {"rgb": tree / "rgb/val/1.png", "nir": tree / "nir/val/1.png"}
    np.testing.assert_array_equal(first.segment(scene).logits, again.segment(scene).logits)
    assert again.classes == first.classes
    card = (tmp_path / "model/README.md").read_text()
    assert "library_name: any2seg" in card
    assert "rgb | rgb | uint8 x 3" in card
    assert "mIoU on split `val` (2 samples" in card
    text = (tmp_path / "model" / CONFIG).read_text()
    assert str(tree.parent) not in text


def test_an_array_counts_like_its_file(trained_field: TrainedField) -> None:
    _, run, tree = trained_field
    segmenter = Segmenter.from_run(run)
    array = np.asarray(Image.open(tree / "rgb/val/0.png"))
    np.testing.assert_array_equal(
        segmenter.segment({"rgb": array}).logits,
        segmenter.segment({"rgb": tree / "rgb/val/0.png"}).logits,
    )


@pytest.mark.parametrize("name", ["rgb", "nir"])
def test_a_pil_image_and_a_text_path_count_like_the_file(
    trained_field: TrainedField, name: str
) -> None:
    _, run, tree = trained_field
    segmenter = Segmenter.from_run(str(run))
    path = tree / name / "val/0.png"
    expected = segmenter.segment({name: path}).logits
    with Image.open(path) as image:
        np.testing.assert_array_equal(segmenter.segment({name: image}).logits, expected)
    np.testing.assert_array_equal(segmenter.segment({name: str(path)}).logits, expected)


def test_a_run_folder_is_found_from_inside_its_workspace(
    trained_field: TrainedField, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, run, _ = trained_field
    monkeypatch.chdir(run)
    assert Segmenter.from_run(".").description == Segmenter.from_run(run).description


@pytest.mark.parametrize("mode", ["RGBA", "L", "P"])
def test_pil_modes_follow_the_rules_of_files(trained_field: TrainedField, mode: str) -> None:
    _, run, tree = trained_field
    segmenter = Segmenter.from_run(run)
    image = Image.open(tree / "rgb/val/0.png").convert(mode)
    shown = np.asarray(image.convert("RGB"))
    np.testing.assert_array_equal(segmenter.read("rgb", image), shown)


def test_pil_images_that_no_file_could_give_are_refused(trained_field: TrainedField) -> None:
    _, run, tree = trained_field
    segmenter = Segmenter.from_run(run)
    image = Image.open(tree / "rgb/val/0.png")
    with pytest.raises(DatasetError, match="rgb: CMYK PIL image: expected a grey or RGB image"):
        segmenter.segment({"rgb": image.convert("CMYK")})
    with pytest.raises(DatasetError, match="rgb: F PIL image: "):
        segmenter.segment({"rgb": image.convert("F")})
    with pytest.raises(DatasetError, match="rgb: HSV PIL image: "):
        segmenter.segment({"rgb": image.convert("HSV")})
    rotated = image.copy()
    rotated.getexif()[274] = 6
    with pytest.raises(DatasetError, match="EXIF orientation 6"):
        segmenter.segment({"rgb": rotated})
    with pytest.raises(DatasetError, match="a PIL image or a NumPy array, found list"):
        segmenter.segment({"rgb": [[0, 0]]})  # type: ignore[dict-item]


def test_one_window_over_all_is_the_whole_picture(trained_field: TrainedField) -> None:
    _, run, tree = trained_field
    segmenter = Segmenter.from_run(run)
    scene = {"rgb": tree / "rgb/val/0.png"}
    whole = segmenter.segment(scene).logits
    np.testing.assert_array_equal(segmenter.segment(scene, Window(side_px=64)).logits, whole)
    tiled = segmenter.segment(scene, Window(side_px=32)).logits
    assert tiled.shape == whole.shape
    assert np.isfinite(tiled).all()
    assert not np.allclose(tiled, whole)


def test_what_does_not_fit_is_refused_by_name(trained_field: TrainedField) -> None:
    _, run, tree = trained_field
    segmenter = Segmenter.from_run(run)
    with pytest.raises(ConfigError, match="expected some of rgb, nir, found 'depth'"):
        segmenter.segment({"depth": tree / "rgb/val/0.png"})
    with pytest.raises(ConfigError, match="found none"):
        segmenter.segment({})
    with pytest.raises(DatasetError, match="nir: expected .* uint16"):
        segmenter.segment({"nir": np.zeros((40, 56), np.uint8)})
    with pytest.raises(DatasetError, match=r"one size.*'nir': \(8, 8\)"):
        segmenter.segment({"rgb": tree / "rgb/val/0.png", "nir": np.zeros((8, 8), np.uint16)})
    with pytest.raises(DatasetError, match="rgb: .*missing.png"):
        segmenter.segment({"rgb": tree / "missing.png"})


def test_damaged_or_foreign_folders_are_refused(
    trained_field: TrainedField, tmp_path: Path
) -> None:
    _, run, _ = trained_field
    with pytest.raises(CheckpointError, match="no config.toml"):
        Segmenter.from_run(tmp_path)
    with pytest.raises(CheckpointError, match="any2seg export"):
        Segmenter.from_pretrained(tmp_path)
    folder = tmp_path / "model"
    Segmenter.from_run(run).save_pretrained(folder)
    described = json.loads((folder / CONFIG).read_text())
    described["classes"] = described["classes"][:-1]
    (folder / CONFIG).write_text(json.dumps(described))
    with pytest.raises(CheckpointError, match="saved student"):
        Segmenter.from_pretrained(folder)
    (folder / WEIGHTS).write_bytes(b"no tensors")
    with pytest.raises(CheckpointError, match="saved student"):
        Segmenter.from_pretrained(folder)
