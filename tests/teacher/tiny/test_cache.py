"""Rendered scenes on disk: reused when they are the same, never mixed when they are not."""

from __future__ import annotations

import numpy as np
import pytest

from pipeline.datasets.synthetic.render import render_scene
from teacher.tiny.cache import open_cache, render_cache


@pytest.fixture
def first(tmp_path):
    return render_cache(tmp_path, seed=1, num=2, size_px=32, processes=1)


def test_holds_the_scenes_as_rendered(first):
    scene = render_scene(1, 1, 32)
    for name, array in first.arrays.items():
        np.testing.assert_array_equal(array[1], getattr(scene, name))
    assert (first.conditions[1], first.captions[1]) == (scene.condition, scene.caption)


def test_is_reused_only_for_the_same_scenes(first, tmp_path):
    stamp, before = (tmp_path / "rgb.npy").stat().st_mtime_ns, np.array(first.arrays["rgb"])
    again = render_cache(tmp_path, seed=1, num=2, size_px=32, processes=1)
    assert (tmp_path / "rgb.npy").stat().st_mtime_ns == stamp
    assert again.captions == first.captions == open_cache(tmp_path).captions
    other = render_cache(tmp_path, seed=2, num=2, size_px=32, processes=1)
    assert not np.array_equal(before, other.arrays["rgb"])


def test_a_killed_rendering_leaves_no_usable_cache(first, tmp_path, monkeypatch):
    def killed(*_args: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("teacher.tiny.cache._allocate", killed)
    with pytest.raises(KeyboardInterrupt):
        render_cache(tmp_path, seed=2, num=2, size_px=32, processes=1)
    assert not (tmp_path / "scenes.json").exists()
