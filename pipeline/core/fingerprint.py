"""Fingerprints: sha256 over canonical JSON of exactly what an artefact depends on.

Names carry the first 12 hex digits, the JSON beside the artefact carries all of it in the open.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from pipeline.errors import FingerprintMismatch

SHORT = 12


def canonical_json(value: object) -> str:
    """JSON with sorted keys, no spaces, ASCII only, no NaN: one text per value."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)


def fingerprint(value: object) -> str:
    """Hex sha256 of `value`'s canonical JSON."""
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()


def differences(found: object, wanted: object, path: str = "") -> list[str]:
    """Dotted paths of the fields in which two JSON-like values differ; none if none differs.

    Empty exactly if the fingerprints are equal: an absent field is not a null, 1 is not 1.0.
    """
    if isinstance(found, Mapping) and isinstance(wanted, Mapping):
        paths: list[str] = []
        for key in sorted({*found, *wanted}):
            here = f"{path}.{key}" if path else str(key)
            if key in found and key in wanted:
                paths += differences(found[key], wanted[key], here)
            else:
                paths.append(here)
        return paths
    return [] if canonical_json(found) == canonical_json(wanted) else [path or "value"]


def require_same(
    what: str, found: Mapping[str, Any], wanted: Mapping[str, Any], remedy: str
) -> None:
    """Raise `FingerprintMismatch` naming the differing fields, or return if all are equal."""
    fields = differences(found, wanted)
    if fields:
        raise FingerprintMismatch(
            f"{what}: made with {fingerprint(found)[:SHORT]}, this configuration asks for "
            f"{fingerprint(wanted)[:SHORT]} (differs in: {', '.join(fields)}). {remedy}"
        )
