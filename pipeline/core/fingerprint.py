"""Fingerprints: sha256 over canonical JSON of exactly what an artefact depends on.

Folder names carry the first 12 hex digits; the JSON file beside the artefact holds the value itself.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from pipeline.errors import FingerprintMismatch

SHORT = 12


def canonical_json(value: object) -> str:
    """JSON with sorted keys, no spaces, ASCII only: one text per value. `ValueError` for NaN."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)


def fingerprint(value: object) -> str:
    """Hex sha256 of `value`'s canonical JSON."""
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()


def differences(actual: object, expected: object, path: str = "") -> list[str]:
    """Dotted paths of the fields in which two JSON-like values differ.

    Empty exactly if the fingerprints are equal: an absent field is not a null, 1 is not 1.0.
    """
    if isinstance(actual, Mapping) and isinstance(expected, Mapping):
        paths: list[str] = []
        for key in sorted({*actual, *expected}):
            field = f"{path}.{key}" if path else str(key)
            if key in actual and key in expected:
                paths += differences(actual[key], expected[key], field)
            else:
                paths.append(field)
        return paths
    # Compared as text: for Python 1 == 1.0 == True, but their fingerprints differ.
    return [] if canonical_json(actual) == canonical_json(expected) else [path or "value"]


def require_same(
    what: str, actual: Mapping[str, Any], expected: Mapping[str, Any], remedy: str
) -> None:
    """Raise `FingerprintMismatch` naming the differing fields unless the two are equal."""
    fields = differences(actual, expected)
    if fields:
        raise FingerprintMismatch(
            f"{what}: made with {fingerprint(actual)[:SHORT]}, this configuration asks for "
            f"{fingerprint(expected)[:SHORT]} (differs in: {', '.join(fields)}). {remedy}"
        )
