"""What cached class prompts depend on, for fingerprints. No torch, no transformers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from teacher.contract import TeacherText


def prompt_identity(
    text: TeacherText,
    classes: Sequence[str],
    templates: Sequence[str],
    *,
    compute_dtype: str,
    cache: Path,
) -> dict[str, Any]:
    """Everything that the embedded class prompts depend on, JSON-ready."""
    return {
        **text.identity(compute_dtype=compute_dtype, cache=cache),
        "classes": list(classes),
        "templates": list(templates),
    }
