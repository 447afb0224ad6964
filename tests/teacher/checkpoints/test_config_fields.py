"""Fields of a config.json: what is accepted, and how the rest is shown."""

from __future__ import annotations

import pytest

from pipeline.errors import CheckpointError
from teacher.checkpoints.config_fields import (
    require_divisible,
    require_integer,
    require_number,
    require_section,
    shown,
)
from teacher.checkpoints.hub_config import ACTIVATIONS


@pytest.mark.parametrize(("value", "number"), [(1, 1), (8, 8), (8.0, 8)])
def test_whole_numbers_are_read(value: object, number: int) -> None:
    assert require_integer({"n": value}, "n", "here", 8) == number
    assert require_integer({}, "n", "here", 8, default=3) == 3


@pytest.mark.parametrize("value", [0, -1, 9, 1.5, True, "4", None, [4], float("nan"), float("inf")])
def test_other_values_are_no_whole_number(value: object) -> None:
    with pytest.raises(
        CheckpointError, match="here: n: expected a whole number from 1 to 8, found"
    ):
        require_integer({"n": value}, "n", "here", 8, default=3)


@pytest.mark.parametrize("value", [True, "4", None, [], 10**400, float("nan"), float("-inf")])
def test_other_values_are_no_finite_number(value: object) -> None:
    assert require_number({"n": -2}, "n", "here") == -2.0
    with pytest.raises(CheckpointError, match="here: n: expected a finite number, found"):
        require_number({"n": value}, "n", "here", default=0.5)


def test_a_section_is_an_object_or_absent() -> None:
    assert require_section({"s": {"a": 1}}, "s", "here") == {"a": 1}
    assert require_section({"s": None}, "s", "here") is None
    with pytest.raises(CheckpointError, match="here: s: expected a JSON object, found 'x'"):
        require_section({"s": "x"}, "s", "here")


def test_heads_divide_the_width() -> None:
    require_divisible(12, 3, "here")
    with pytest.raises(CheckpointError, match="divides, found 12 and 5"):
        require_divisible(12, 5, "here")


@pytest.mark.parametrize(
    "value",
    [None, 10**5000, "x" * 10**6, {"a\nb": ["c"] * 100}],
    ids=["none", "digits", "text", "object"],
)
def test_any_value_is_shown_in_one_short_line(value: object) -> None:
    assert len(shown(value)) <= 60
    assert "\n" not in shown(value)


def test_the_activations_are_those_of_transformers() -> None:
    from transformers.activations import ACT2FN

    assert set(ACTIVATIONS) <= set(ACT2FN)
