"""Shared label sets are complete: one name and one colour a class."""

from __future__ import annotations

from pipeline.datasets.label_sets import CITYSCAPES_CLASSES, CITYSCAPES_PALETTE


def test_one_colour_a_class() -> None:
    assert len(CITYSCAPES_CLASSES) == len(set(CITYSCAPES_CLASSES)) == 19
    assert len(CITYSCAPES_PALETTE) == len(set(CITYSCAPES_PALETTE)) == 19
