"""Geometry of image processors, from the forms that their settings have had over the years."""

from __future__ import annotations

from typing import Any

import pytest

from pipeline.errors import CheckpointError
from teacher.families.processing import processing_of


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        (
            {"feature_extractor_type": "CLIPFeatureExtractor", "size": 224, "crop_size": 224},
            (224, 1.0, False),
        ),
        ({"image_processor_type": "CLIPImageProcessor"}, (224, 1.0, False)),
        (
            {
                "image_processor_type": "BitImageProcessor",
                "size": {"shortest_edge": 256},
                "crop_size": {"height": 224, "width": 224},
            },
            (224, 0.875, False),
        ),
        ({"image_processor_type": "SiglipImageProcessorFast"}, (224, 1.0, True)),
        (
            {
                "image_processor_type": "DINOv3ViTImageProcessorFast",
                "size": {"height": 96, "width": 96},
            },
            (96, 1.0, True),
        ),
        ({"image_processor_type": "ViTImageProcessor", "size": 64}, (64, 1.0, True)),
        (
            {"image_processor_type": "Other", "size": {"height": 8, "width": 8}},
            (8, 1.0, True),
        ),
    ],
)
def test_known_forms(settings: dict[str, Any], expected: tuple[int, float, bool]) -> None:
    processing = processing_of(settings, "here")
    assert (processing.size_px, processing.field, processing.squashes) == expected


@pytest.mark.parametrize(
    "settings",
    [
        {"image_processor_type": "Other"},
        {"image_processor_type": "CLIPImageProcessor", "do_resize": False},
        {"image_processor_type": "SiglipImageProcessor", "size": {"shortest_edge": 224}},
        {"image_processor_type": "SiglipImageProcessor", "size": {"height": 8, "width": 9}},
        {"image_processor_type": "CLIPImageProcessor", "size": {"longest_edge": 224}},
        {"image_processor_type": "CLIPImageProcessor", "crop_size": {"height": 8, "width": 9}},
        {"image_processor_type": "CLIPImageProcessor", "crop_size": "large"},
    ],
)
def test_settings_without_one_square_size_are_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(CheckpointError, match="here: image processor: .*square pixel values"):
        processing_of(settings, "here")


def test_the_fingerprint_leaves_out_what_changes_no_number() -> None:
    settings = {"image_processor_type": "CLIPImageProcessor", "size": 224, "crop_size": 224}
    noisy = processing_of({**settings, "processor_class": "CLIPProcessor"}, "here").identity()
    assert noisy == processing_of(settings, "here").identity()
    assert "field" not in noisy
