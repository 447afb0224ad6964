"""The table of words: complete, unambiguous, and sensible about what is near what."""

from __future__ import annotations

import numpy as np
import pytest

from pipeline.datasets.deliver_classes import DELIVER_CLASSES
from teacher.encoding.class_prompts import TEMPLATES as PROMPT_SETS
from teacher.tiny.lexicon import (
    CLASSES,
    CONDITIONS,
    SCORED_TEMPLATES,
    TEMPLATES,
    all_concepts,
    target_gram,
)


def _squeezed(name: str) -> str:
    return name.lower().replace(" ", "").replace("-", "")


def test_classes_follow_delivers_label_ids():
    assert len(CLASSES) == len(DELIVER_CLASSES)
    for concept, name in zip(CLASSES, DELIVER_CLASSES, strict=True):
        assert _squeezed(name) in {_squeezed(known) for known in concept.names}


def test_no_name_means_two_things():
    names = [name for concept in all_concepts() for name in concept.names]
    assert len(names) == len(set(names))


def test_gram_is_a_cosine_matrix():
    gram = target_gram()
    assert gram.shape == (len(all_concepts()),) * 2
    np.testing.assert_allclose(np.diag(gram), 1.0, rtol=1e-6)
    assert np.linalg.eigvalsh(gram).min() > 0
    assert np.sort(gram, axis=1)[:, -2].max() < 0.9, "two concepts that cannot be told apart"


@pytest.mark.parametrize(
    ("word", "near", "far"),
    [("car", "truck", "sky"), ("road", "sidewalk", "bus"), ("vegetation", "terrain", "wall")],
)
def test_related_concepts_have_larger_cosines(word, near, far):
    rows = {concept.names[0]: index for index, concept in enumerate(CLASSES)}
    gram = target_gram()
    assert gram[rows[word], rows[near]] > gram[rows[word], rows[far]] + 0.2


def test_the_prompts_of_the_default_set_are_trained_on():
    assert set(PROMPT_SETS["photo"]) <= set(SCORED_TEMPLATES) <= set(TEMPLATES)
    assert all(template.count("{}") == 1 for template in TEMPLATES)
    assert list(CONDITIONS) == ["cloud", "fog", "night", "rain", "sun"]
