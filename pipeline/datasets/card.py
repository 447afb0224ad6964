"""Facts about a published data set that are known before any of it is read.

The card of a data set stands beside its adapter; `pipeline.datasets.CARDS` lists them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class DatasetCard:
    """Facts to check a dataset folder against, and whom to credit."""

    title: str
    expected: Mapping[str, int]
    """Split to its published number of samples."""
    size_px: tuple[int, int]
    """Height and width of the images."""
    folders: Mapping[str, str]
    """Kind of modality to its folder under the root."""
    conditions: tuple[str, ...]
    corner_cases: tuple[str, ...]
    provenance: str
    """Who made it, how, and where it is described."""
    licence: str
