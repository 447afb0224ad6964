"""Checked fields of a config.json: what is not a number or word of its kind is a `CheckpointError`."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from pipeline.errors import CheckpointError

_REMEDY = "Use the config.json that belongs to these weights."


def require_section(raw: Mapping[str, Any], name: str, where: str) -> dict[str, Any] | None:
    """The JSON object under `name`; None if there is none."""
    value = raw.get(name)
    if value is None or isinstance(value, dict):
        return value
    raise field_error(where, name, "a JSON object", value)


def require_integer(
    section: Mapping[str, Any], name: str, where: str, largest: int, default: int | None = None
) -> int:
    """A whole number from 1 to `largest`; `default` for a field that is absent."""
    value = section.get(name, default)
    whole = isinstance(value, float) and value.is_integer()
    if (
        isinstance(value, bool)
        or not (isinstance(value, int) or whole)
        or not 1 <= value <= largest
    ):
        raise field_error(where, name, f"a whole number from 1 to {largest}", value)
    return int(value)


def require_number(
    section: Mapping[str, Any], name: str, where: str, default: float | None = None
) -> float:
    """A finite number; `default` for a field that is absent."""
    value = section.get(name, default)
    if isinstance(value, bool) or not isinstance(value, int | float) or not _finite(value):
        raise field_error(where, name, "a finite number", value)
    return float(value)


def require_divisible(width: int, num_heads: int, where: str) -> None:
    """Raise `CheckpointError` unless every attention head has the same width."""
    if width % num_heads:
        raise CheckpointError(
            f"{where}: expected a hidden_size in config.json that num_attention_heads divides, found "
            f"{width} and {num_heads}. {_REMEDY}"
        )


def field_error(where: str, name: str, expected: str, actual: object) -> CheckpointError:
    """The error for a field that is not what it should be."""
    return CheckpointError(
        f"{where}: {name}: expected {expected}, found {shown(actual)}. {_REMEDY}"
    )


def shown(value: object) -> str:
    """A value of a JSON file, short enough for one line."""
    if value is None:
        return "none"
    if isinstance(value, int) and abs(value) >= 1 << 64:
        return "a number of more than 64 bits"
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _finite(value: float) -> bool:
    try:
        return math.isfinite(value)
    except OverflowError:  # a whole number beyond the largest float
        return False
