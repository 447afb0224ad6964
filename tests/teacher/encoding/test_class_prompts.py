"""Template sets and the class ensemble."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import teacher
from pipeline.errors import ConfigError
from teacher.encoding.class_prompts import TEMPLATES, embed_classes, templates


def test_the_sets_are_upstreams() -> None:
    imagenet = templates("imagenet-80")
    assert len(set(imagenet)) == 80
    assert sum("photo" in template for template in imagenet) == 43
    assert sum("depth photo" in template for template in templates("depth")) == 43
    assert set(TEMPLATES) == {"photo", "imagenet-80", "depth", "thermal", "driving"}
    assert all(t.count("{}") == 1 for chosen in TEMPLATES.values() for t in chosen)
    with pytest.raises(ConfigError, match="expected one of photo, imagenet-80"):
        templates("sketch")


def test_a_class_is_the_normalised_mean_of_its_normalised_prompts(source: Path) -> None:
    text = teacher.load_text_tower(str(source))
    prompts = embed_classes(text, ["car", "tree"], "driving")
    assert prompts.prompt_embedding.shape == (2, 10, 12)
    for index, name in enumerate(("car", "tree")):
        rows = np.stack([text.encode([t.format(name)])[0].numpy() for t in templates("driving")])
        mean = rows.astype(np.float64).mean(axis=0)
        expected = mean / np.linalg.norm(mean)
        np.testing.assert_allclose(prompts.class_embedding[index], expected, atol=1e-6)
        np.testing.assert_allclose(prompts.prompt_embedding[index], rows, atol=1e-6)
