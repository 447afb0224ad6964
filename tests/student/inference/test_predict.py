"""Prediction of files and folders, through the command too."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipeline.errors import ConfigError
from pipeline.modalities import KINDS
from student.inference.predict import list_scenes, overlay, palette_png

PALETTE = ((10, 20, 30), (200, 0, 0), (0, 200, 0))


def touch(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"x")
    return path


def test_folders_are_matched_by_name_whatever_the_ending(tmp_path: Path) -> None:
    for name in ("a.png", "b.png", "notes.txt"):
        touch(tmp_path / "rgb" / name)
    touch(tmp_path / "depth" / "b.npy")
    scenes = list_scenes({"rgb": tmp_path / "rgb", "depth": tmp_path / "depth"})
    assert [(s.name, sorted(s.files)) for s in scenes] == [("a", ["rgb"]), ("b", ["depth", "rgb"])]


def test_one_file_a_sensor_is_one_scene_whatever_the_names(tmp_path: Path) -> None:
    rgb, depth = touch(tmp_path / "left.png"), touch(tmp_path / "range.png")
    (scene,) = list_scenes({"rgb": rgb, "depth": depth})
    assert scene.name == "left"
    assert scene.files == {"rgb": rgb, "depth": depth}


def test_folders_that_do_not_go_together_are_refused(tmp_path: Path) -> None:
    rgb = touch(tmp_path / "rgb" / "a.png")
    touch(tmp_path / "depth" / "a_depth.png")
    with pytest.raises(ConfigError, match="rgb a, depth a_depth"):
        list_scenes({"rgb": tmp_path / "rgb", "depth": tmp_path / "depth"})
    with pytest.raises(ConfigError, match="files only or folders only"):
        list_scenes({"rgb": rgb, "depth": tmp_path / "depth"})
    with pytest.raises(ConfigError, match="no such file"):
        list_scenes({"rgb": tmp_path / "none"})
    touch(tmp_path / "rgb" / "a.jpg")
    with pytest.raises(ConfigError, match="the same name twice"):
        list_scenes({"rgb": tmp_path / "rgb"})


def test_hidden_files_are_no_scenes(tmp_path: Path) -> None:
    for name in ("a.png", "._a.png", ".b.png"):
        touch(tmp_path / "rgb" / name)
    assert [scene.name for scene in list_scenes({"rgb": tmp_path / "rgb"})] == ["a"]


def test_a_palette_image_holds_ids_and_colours(tmp_path: Path) -> None:
    ids = np.array([[0, 1], [2, 1]], np.uint8)
    (tmp_path / "a.png").write_bytes(palette_png(ids, PALETTE))
    image = Image.open(tmp_path / "a.png")
    np.testing.assert_array_equal(np.asarray(image), ids)
    np.testing.assert_array_equal(np.asarray(image.convert("RGB")), np.array(PALETTE)[ids])


def test_an_overlay_is_half_image_half_class() -> None:
    image = np.full((1, 2), 51_000, np.uint16)
    actual = overlay(image, KINDS["gray16"], np.array([[0, 1]], np.uint8), PALETTE)
    grey = 255 * 51_000 / 65_535
    expected = [[np.rint((np.array(colour) + grey) / 2) for colour in PALETTE[:2]]]
    np.testing.assert_allclose(actual, expected, atol=1)


def run(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "flows.cli", "predict", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.mark.slow
def test_the_command_predicts_what_it_can_and_names_what_it_cannot(
    saved_student: Path, field_tree: Path, tmp_path: Path
) -> None:
    folders = {}
    for name in ("rgb", "nir"):
        folders[name] = tmp_path / name
        shutil.copytree(field_tree / name / "val", folders[name])
    (folders["nir"] / "1.png").write_bytes(b"no picture")
    Image.fromarray(np.zeros((30, 70, 3), np.uint8)).save(folders["rgb"] / "2.png")
    done = run(
        saved_student, "--rgb", folders["rgb"], f"--nir={folders['nir']}", "-o", tmp_path / "out",
        "--logits", "--device", "cpu",
    )  # fmt: skip
    assert done.returncode == 1, done.stderr
    assert "1 from rgb+nir" in done.stdout
    assert "1 from rgb\n" in done.stdout
    assert "refused 1: nir:" in done.stdout
    written = {path.name for path in (tmp_path / "out").iterdir()}
    endings = (".png", "_overlay.png", ".npy")
    assert written == {"predictions.json", *(f"{stem}{end}" for stem in "02" for end in endings)}
    assert np.load(tmp_path / "out" / "2.npy").shape == (4, 30, 70)
    logits = np.load(tmp_path / "out" / "0.npy")
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "out/0.png")), logits.argmax(0))


@pytest.mark.slow
def test_a_sensor_that_the_student_does_not_have(saved_student: Path, tmp_path: Path) -> None:
    done = run(saved_student, "--thermal", touch(tmp_path / "a.png"))
    assert done.returncode == 1
    assert "expected some of --rgb, --nir, found --thermal" in done.stderr


@pytest.mark.slow
def test_results_never_go_where_inputs_lie(
    saved_student: Path, field_tree: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "rgb"
    shutil.copytree(field_tree / "rgb/val", folder)
    (folder / "._0.png").write_bytes(b"of a Mac")
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    refused = run(saved_student, "--rgb", folder, "-o", folder, "--device", "cpu")
    assert refused.returncode == 1
    assert "results need a folder of their own" in refused.stderr
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    done = run(saved_student, "--rgb", folder, "-o", tmp_path / "out", "--device", "cpu")
    assert done.returncode == 0, done.stderr
    assert "1 hidden file passed over (._0.png)" in done.stdout
