"""Windows over pictures: they cover everything, and overlaps are averaged."""

from __future__ import annotations

import torch

from student.evaluation.sliding_window import Window, merged, window_slices


def test_windows_cover_every_pixel() -> None:
    window = Window(side_px=32, overlap=0.25)
    for length in (1, 31, 32, 33, 100):
        covered = torch.zeros(length, dtype=torch.bool)
        for start in window.starts(length):
            covered[start : start + 32] = True
        assert covered.all()
    assert window.starts(100) == [0, 24, 48, 68]


def test_windows_of_an_image_have_one_size_and_stay_inside() -> None:
    found = window_slices(40, 100, Window(side_px=64, overlap=0.25))
    shapes = {(rows.stop - rows.start, columns.stop - columns.start) for rows, columns in found}
    assert shapes == {(40, 64)}
    assert max(columns.stop for _, columns in found) == 100
    assert window_slices(40, 100, None) == [(slice(0, 40), slice(0, 100))]


def test_overlapping_windows_are_averaged() -> None:
    window = Window(side_px=4, overlap=0.5)
    generator = torch.Generator().manual_seed(0)
    parts = [(p, torch.randn(2, 3, 4, 4, generator=generator)) for p in window_slices(6, 7, window)]
    found = merged(iter(parts), 6, 7)
    for y in range(6):
        for x in range(7):
            seen = [
                logits[:, :, y - rows.start, x - columns.start]
                for (rows, columns), logits in parts
                if rows.start <= y < rows.stop and columns.start <= x < columns.stop
            ]
            torch.testing.assert_close(found[:, :, y, x], torch.stack(seen).mean(0))
