"""Clips against upstream's video processor, without its random mirror."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from teacher.preprocessing.images import to_pixels
from teacher.preprocessing.options import Preprocessing
from teacher.preprocessing.video import frame_indices

VIDEO = Preprocessing("video")


def test_equals_the_golden(goldens: Path) -> None:
    golden = load_file(goldens / "preprocess.safetensors")
    clip = golden["video_frames_THWC"].numpy()
    found = to_pixels([clip], VIDEO)[0]
    assert found.shape == (3, 8, 224, 224)
    torch.testing.assert_close(found[:, :, 80:112, 80:112], golden["video"], atol=1e-6, rtol=0)
    assert torch.equal(found, to_pixels([clip], VIDEO)[0])


def test_a_video_file_equals_the_golden(shared: Path) -> None:
    pytest.importorskip("av", reason="PyAV is not installed")
    folder = shared / "languagebind" / "preprocess"
    expected = load_file(folder / "expected.safetensors")["video.all_frames.crop80_144"]
    found = to_pixels([folder / "inputs" / "video_64x48_23f.avi"], VIDEO)[0]
    torch.testing.assert_close(found[:, :, 80:144, 80:144], expected, atol=1e-5, rtol=0)


def test_frames_are_taken_as_upstream_does(shared: Path) -> None:
    meta = json.loads((shared / "languagebind" / "preprocess" / "meta.json").read_text())
    for case, expected in meta["video_frame_index_table"].items():
        total, wanted = map(int, case.split("/"))
        assert frame_indices(total, wanted).tolist() == expected


@pytest.mark.parametrize(("height", "width"), [(30, 50), (50, 30), (64, 64)])
def test_every_aspect_ratio_fills_the_input(height: int, width: int) -> None:
    clip = np.random.default_rng([4]).integers(0, 256, (9, height, width, 3), dtype=np.uint8)
    assert to_pixels([clip], Preprocessing("video", size_px=32)).shape == (1, 3, 8, 32, 32)


def test_a_malformed_clip_is_refused() -> None:
    with pytest.raises(ValueError, match=r"expected \(T, H, W, 3\) uint8 frames"):
        to_pixels([np.zeros((4, 4, 3), np.uint8)], VIDEO)
