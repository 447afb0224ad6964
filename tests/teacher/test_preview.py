"""The preview shows what the tower sees: its crop, its resize, the rendering; one line for a wrong file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from flows.cli.main import app
from pipeline.errors import ConfigError, DatasetError
from pipeline.modalities import KINDS
from teacher.open import open_teacher
from teacher.preprocessing.rendering import render
from teacher.preview import preview

TINY = "languagebind-tiny"


def written(path: Path, array: np.ndarray) -> Path:
    Image.fromarray(array).save(path)
    return path


def test_an_image_of_the_input_s_size_is_shown_as_it_is(tmp_path: Path) -> None:
    size = open_teacher(TINY).tower("image").input_px
    array = np.random.default_rng(1).integers(0, 256, (*size, 3), dtype=np.uint8)
    image, seen = preview(TINY, written(tmp_path / "a.png", array), "rgb")
    np.testing.assert_array_equal(image, array)
    assert str(seen) == "rgb: image tower, as_stored"


def test_a_thermal_image_is_shown_stretched(tmp_path: Path) -> None:
    size = open_teacher(TINY).tower("image").input_px
    array = np.random.default_rng(1).integers(28_000, 28_400, size).astype(np.uint16)
    image, seen = preview(TINY, written(tmp_path / "t.png", array), "thermal16")
    np.testing.assert_array_equal(image, render(array, KINDS["thermal16"], "grey_stretched"))
    assert str(seen) == "thermal16: image tower, grey_stretched"


def test_depth_is_shown_in_the_depth_tower_s_metres(tmp_path: Path) -> None:
    size = open_teacher(TINY).tower("depth").input_px
    array = np.full(size, 65_535, np.uint16)
    array[: size[0] // 2] = 0
    image, seen = preview(TINY, written(tmp_path / "d.png", array), "depth")
    assert str(seen) == "depth: depth tower, as_stored"
    assert image.shape == (*size, 3)
    assert (image[0].max(), image[-1].min()) == (0, 255)


def test_the_command_writes_a_png(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    written(tmp_path / "x.png", np.full((40, 60), 9, np.uint8))
    asked = ["teacher", TINY, "--preview", "x.png", "--kind", "nir"]
    done = CliRunner().invoke(app, asked, catch_exceptions=False)
    assert done.exit_code == 0
    assert done.output.splitlines()[0] == "nir: image tower, grey_stretched"
    assert "Wrote x-nir.png" in done.output
    assert np.unique(np.asarray(Image.open("x-nir.png"))).tolist() == [128]
    CliRunner().invoke(app, [*asked, "-o", "other.png"], catch_exceptions=False)
    assert Path("other.png").read_bytes() == Path("x-nir.png").read_bytes()


def test_what_cannot_be_shown_is_refused_by_name(tmp_path: Path) -> None:
    wide = written(tmp_path / "w.png", np.full((4, 4), 900, np.uint16))
    with pytest.raises(DatasetError, match=r"w\.png.*any2seg kinds"):
        preview(TINY, wide, "thermal")
    with pytest.raises(ConfigError, match="--kind: unknown kind 'radar'"):
        preview(TINY, wide, "radar")
