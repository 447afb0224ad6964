"""Captions say what the content holds, and nothing that it does not hold."""

from __future__ import annotations

import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from teacher.tiny.captions import (
    MAX_MENTIONS,
    MIN_AREA,
    Content,
    describe,
    mentioned_classes,
    random_content,
)
from teacher.tiny.lexicon import CLASSES


def _content(areas: dict[int, float], condition: str | None = None) -> Content:
    values = np.zeros(len(CLASSES), np.float32)
    for index, area in areas.items():
        values[index] = area
    return Content(values, np.full(len(CLASSES), 0.1, np.float32), condition)


@given(seed=st.integers(0, 2**32 - 1))
def test_every_mentioned_class_is_named_and_no_other(seed):
    rng = np.random.default_rng([seed])
    content = random_content(rng)
    text = describe(content, rng)
    assert 1 <= len(mentioned_classes(content)) <= MAX_MENTIONS
    for index in mentioned_classes(content):
        assert any(name in text for name in CLASSES[index].names)
    bus = CLASSES[23].names
    if content.areas[23] < MIN_AREA:
        assert not any(re.search(rf"\b{name}\b", text) for name in bus)


def test_captions_name_side_size_and_condition():
    rng = np.random.default_rng([0])
    text = describe(_content({9: 0.1, 6: 0.8, 23: 0.01}, "night"), rng)
    assert re.search(r"mostly (road|street|roadway|asphalt)", text)
    assert re.search(r"a little (bus|buses|coach) on the left", text)
    assert any(words in text for words in ("at night", "in the dark", "on a dark night"))


def test_empty_content_still_reads():
    text = describe(_content({}, "fog"), np.random.default_rng([1]))
    assert "nothing" in text


def test_vector_separates_sides_and_conditions():
    left, right = _content({9: 0.25}), _content({9: 0.25})
    right.centres[9] = 0.9
    assert left.vector()[9] == right.vector()[9] == pytest.approx(0.5)
    assert left.vector()[len(CLASSES) + 9] == pytest.approx(-right.vector()[len(CLASSES) + 9])
    assert _content({}, "rain").vector()[-5:].tolist() == [0, 0, 0, 1, 0]
