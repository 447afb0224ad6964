"""What is known of a published data set before a byte of it is read. Data only; nothing can fail.

Each adapter of a published data set states its card beside its code; `pipeline.datasets.CARDS`
lists them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class DatasetCard:
    """Facts to check a tree against, and what to credit."""

    title: str
    expected: Mapping[str, int]
    """Split to its published number of samples."""
    size_px: tuple[int, int]
    """Height and width of the pictures."""
    folders: Mapping[str, str]
    """Kind of modality to its folder under the root."""
    conditions: tuple[str, ...]
    corner_cases: tuple[str, ...]
    provenance: str
    """Who made it, how, and where it is described."""
    licence: str
