"""Preprocessing: what config.json implies, and what a fingerprint covers."""

from __future__ import annotations

import pytest

from pipeline.errors import ConfigError
from teacher.checkpoints.hub_config import parse_config
from teacher.preprocessing.config import Preprocessing, preprocessing_for


def test_the_checkpoint_gives_the_defaults() -> None:
    image = parse_config(
        {"model_type": "LanguageBindImage", "vision_config": {"image_size": 336}}, "here"
    )
    assert preprocessing_for(image) == Preprocessing("image", size_px=336)
    depth = parse_config(
        {"model_type": "LanguageBindDepth", "vision_config": {"image_size": 64, "max_depth": 80}},
        "here",
    )
    assert preprocessing_for(depth).size_px == 64
    assert preprocessing_for(depth).max_depth_m == 80.0
    assert preprocessing_for(depth, max_depth_m=None).max_depth_m == 80.0
    assert preprocessing_for(depth, max_depth_m=0.0).max_depth_m == 0.0


def test_an_option_of_another_tower_is_refused() -> None:
    image = parse_config({"model_type": "LanguageBindImage"}, "here")
    with pytest.raises(ConfigError, match=r"image tower: no option 'holes'; .* size_px, antialias"):
        preprocessing_for(image, holes="far")


def test_the_identity_has_only_what_matters_to_the_tower() -> None:
    first, second = Preprocessing("image"), Preprocessing("image", max_depth_m=80.0)
    assert first.identity() == second.identity()
    assert "antialias" in first.identity()
    assert Preprocessing("depth").identity() != Preprocessing("depth", holes="far").identity()
