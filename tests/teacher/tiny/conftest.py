"""A handful of rendered scenes, and the packaged checkpoint, for the tests of the tiny teacher."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import teacher
from pipeline.datasets.synthetic.render import render_scene
from teacher.tiny.cache import Scenes

NUM_SCENES = 40
SEED = 9201


@pytest.fixture(scope="session")
def assets() -> Path:
    """The checkpoint that the package ships."""
    return Path(teacher.__file__).parent / "assets" / "languagebind-tiny"


@pytest.fixture(scope="session")
def scenes() -> Scenes:
    """Scenes of a seed that neither training nor the shipped scores use."""
    rendered = [render_scene(SEED, index, 128) for index in range(NUM_SCENES)]
    names = ("rgb", "event", "depth", "lidar", "label")
    return Scenes(
        {name: np.stack([getattr(scene, name) for scene in rendered]) for name in names},
        tuple(scene.condition for scene in rendered),
        tuple(scene.caption for scene in rendered),
    )
