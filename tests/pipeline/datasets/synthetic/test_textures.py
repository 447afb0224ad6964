"""Patterns: tileable noise of known statistics, details that fade, grids that repeat."""

from __future__ import annotations

import numpy as np
import pytest

from pipeline.datasets.synthetic import textures
from pipeline.datasets.synthetic.primitives import Material

LINE = np.linspace(-20, 20, 4001, dtype=np.float32)


def test_noise_is_standardised_and_wraps():
    tile = textures.noise_tile()
    assert tile.mean() == pytest.approx(0, abs=1e-5)
    assert tile.std() == pytest.approx(1, rel=1e-4)
    steps = np.arange(-20, 20, 0.25, dtype=np.float32) + np.float32(0.125)
    level = np.full_like(steps, 0.5)
    assert np.array_equal(textures.noise(steps, level), textures.noise(steps + 256, level - 256))


def test_tables_cover_every_material():
    contrast, rate = textures.noise_tables()
    assert len(contrast) == len(rate) == len(Material)
    assert contrast[Material.FOLIAGE] > contrast[Material.PLAIN] > contrast[Material.GLASS] == 0


def test_detail_fades_with_the_footprint():
    footprint = np.array([0.01, 0.5, 5.0], np.float32)
    shown = textures.fade(footprint, 0.5)
    assert shown.tolist() == [1.0, 0.5, 0.0]


@pytest.mark.parametrize(
    ("pattern", "period"),
    [
        (lambda u: textures.slats(u), 0.32),
        (lambda u: textures.sleepers(u), 0.75),
        (lambda u: textures.windows(u, np.full_like(u, 1.5))[0], 2.1),
    ],
)
def test_patterns_repeat_and_vary(pattern, period):
    values = pattern(LINE)
    assert len(np.unique(values)) == 2
    assert (values == pattern(LINE + np.float32(8 * period))).mean() > 0.97


def test_cells_differ_but_are_stable():
    cells = np.arange(50, dtype=np.float32)
    values = textures.cell_hash(cells, cells * 0, 3.0)
    assert len(np.unique(values)) > 45
    assert ((values >= 0) & (values < 1)).all()
    assert np.array_equal(values, textures.cell_hash(cells, cells * 0, 3.0))


@pytest.mark.parametrize("pattern", [textures.bricks, textures.flags])
def test_masonry_has_dark_joints_around_mean_one(pattern):
    u, v = np.meshgrid(LINE[::20], np.linspace(0, 6, 300, dtype=np.float32))
    values = pattern(u.ravel(), v.ravel())
    assert values.min() < 0.8
    assert 0.8 < values.mean() < 1.1
