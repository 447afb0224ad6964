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
