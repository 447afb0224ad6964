"""The contact sheet: the same for the same seed, sized for any mixture of samples."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from pipeline.config.config import Config
from pipeline.datasets import open_dataset
from pipeline.datasets.base import SourceSample
from pipeline.modalities import KINDS
from pipeline.onboarding.contact_sheet import (
    CELL_PX,
    NUM_SAMPLES,
    visible_colours,
    write_contact_sheet,
)


def listed(config: Config) -> list[SourceSample]:
    adapter = open_dataset(config.dataset, config.specs())
    return [sample for split in adapter.splits() for sample in adapter.samples(split)]


def test_the_contact_sheet_depends_on_the_seed_alone(
    make_source: Callable[..., Path], make_config: Callable[..., Config], tmp_path: Path
) -> None:
    make_source(train=9)
    config = make_config()
    paths = [tmp_path / f"{n}.png" for n in range(3)]
    for path, seed in zip(paths, (0, 0, 1), strict=True):
        assert write_contact_sheet(path, config, listed(config), seed) == NUM_SAMPLES
    assert paths[0].read_bytes() == paths[1].read_bytes() != paths[2].read_bytes()
    with Image.open(paths[0]) as sheet:
        assert sheet.width > 3 * CELL_PX


def test_refused_samples_and_absent_modalities_are_left_out(
    make_source: Callable[..., Path], make_config: Callable[..., Config], tmp_path: Path
) -> None:
    root = make_source(train=4)
    (root / "depth/train/000.png").unlink()
    (root / "rgb/train/001.png").write_bytes(b"")
    config = make_config("dataset.missing=allow")
    path = tmp_path / "sheet.png"
    assert write_contact_sheet(path, config, listed(config)) == 3
    path.unlink()
    assert write_contact_sheet(path, config, []) == 0
    assert not path.exists()


def test_distances_are_bright_near_and_black_in_holes() -> None:
    depth = np.array([[0, 500, 8000]], np.uint16)
    hole, near, far = visible_colours(depth, KINDS["depth"])[0]
    assert near[0] > far[0] > hole.max()
    rgb = np.arange(12, dtype=np.uint8).reshape(2, 2, 3)
    np.testing.assert_array_equal(visible_colours(rgb, KINDS["rgb"]), rgb)
    assert visible_colours(np.zeros((2, 2), np.uint8), KINDS["nir"]).shape == (2, 2, 3)
