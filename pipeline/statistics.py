"""Statistics of a dataset: measured sample by sample while shards are made, summed on demand.

`measure` gives the manifest's record of one array: integer sums of its [0, 1] values in steps of
1 / 65535. Integers add up to the same figures in any order and over any number of runs, so a
dataset that was killed, resumed or grown has the statistics of one made in one go. `summarise`
adds the records of a split. Nothing is read or written here, and nothing can fail.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache, reduce
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.modalities import ModalitySpec, to_unit_range

UNIT_STEPS = 65_535
"""Steps of the [0, 1] range in which values are summed; 8-bit codes fall on steps exactly."""


@dataclass(frozen=True, slots=True)
class ModalityStatistics:
    """One modality of a split, over the samples that have it."""

    num_samples: int
    pixels: int
    """Pixels of those samples."""
    valid_pixels: int
    """Pixels with a value other than 0 in any channel: ranges measured, events seen."""
    saturated_pixels: int
    """Pixels at or above `max_value` in any channel: they all look alike to the student."""
    lowest: int | None
    """Smallest stored value other than 0, in the unit of the modality; None if there is none."""
    highest: int | None
    mean: tuple[float, ...]
    """Per channel, of the [0, 1] values; of a modality in mm over its valid pixels alone."""
    std: tuple[float, ...]

    @property
    def valid_share(self) -> float:
        """Valid pixels of all pixels; NaN if there are none."""
        return self.valid_pixels / self.pixels if self.pixels else math.nan


@dataclass(frozen=True, slots=True)
class SplitStatistics:
    """A split as `Manifest.statistics` gives it."""

    num_samples: int
    modalities: Mapping[str, ModalityStatistics]
    class_pixels: Mapping[str, int]
    """Class name to labelled pixels."""
    ignored_pixels: int
    availability: Mapping[tuple[str, ...], int]
    """Modalities that a sample has, to the number of such samples; most frequent first."""

    def class_shares(self) -> dict[str, float]:
        """Class name to its share of the labelled pixels."""
        total = max(1, sum(self.class_pixels.values()))
        return {name: count / total for name, count in self.class_pixels.items()}

    def together(self, first: str, second: str) -> int:
        """Samples that have both modalities."""
        return sum(n for held, n in self.availability.items() if first in held and second in held)


def measure(name: str, array: NDArray[Any], spec: ModalitySpec) -> dict[str, Any]:
    """The manifest's record of one stored array (H, W) or (H, W, 3): exact integers."""
    planes = [array] if array.ndim == 2 else [array[:, :, c] for c in range(array.shape[2])]
    counts_CV = np.stack([_histogram(plane) for plane in planes])
    units_V = _units(spec)
    values = np.flatnonzero(counts_CV[:, 1:].any(axis=0)) + 1
    brightest = reduce(np.maximum, planes)
    return {
        "name": name,
        "valid_pixels": int(np.count_nonzero(brightest)),
        "saturated_pixels": int(np.count_nonzero(brightest >= math.ceil(spec.max_value))),
        "lowest": int(values[0]) if values.size else None,
        "highest": int(values[-1]) if values.size else None,
        "sums": (counts_CV @ units_V).tolist(),
        "squares": (counts_CV @ units_V**2).tolist(),
    }


def _histogram(plane: NDArray[Any]) -> NDArray[np.int64]:
    return np.bincount(plane.ravel(), minlength=np.iinfo(plane.dtype).max + 1)


@lru_cache(maxsize=16)
def _units(spec: ModalitySpec) -> NDArray[np.int64]:
    """The [0, 1] value, in steps, of every stored value."""
    values = np.arange(np.iinfo(spec.dtype).max + 1, dtype=spec.dtype)
    units = to_unit_range(values, spec).astype(np.float64) * UNIT_STEPS
    return np.rint(units).astype(np.int64)


def summarise(
    rows: Sequence[Mapping[str, Any]], specs: Mapping[str, ModalitySpec], classes: Sequence[str]
) -> SplitStatistics:
    """Add up manifest rows (see `MANIFEST_SCHEMA`); `specs` and `classes` as in `dataset.json`."""
    held = Counter(tuple(row["modalities"]) for row in rows)
    pixels = np.array([row["class_pixels"] for row in rows], np.int64).reshape(-1, len(classes))
    return SplitStatistics(
        num_samples=len(rows),
        modalities={name: _modality(name, spec, rows) for name, spec in specs.items()},
        class_pixels=dict(zip(classes, pixels.sum(axis=0).tolist(), strict=True)),
        ignored_pixels=sum(row["ignored_pixels"] for row in rows),
        availability=dict(sorted(held.items(), key=lambda item: (-item[1], item[0]))),
    )


def _modality(
    name: str, spec: ModalitySpec, rows: Iterable[Mapping[str, Any]]
) -> ModalityStatistics:
    found = [
        (row["height"] * row["width"], record)
        for row in rows
        for record in row["statistics"]
        if record["name"] == name
    ]
    records = [record for _, record in found]
    pixels = sum(count for count, _ in found)
    valid = sum(record["valid_pixels"] for record in records)
    counted = valid if spec.unit == "mm" else pixels
    moments = [
        _moments(
            counted,
            sum(record["sums"][channel] for record in records),
            sum(record["squares"][channel] for record in records),
        )
        for channel in range(spec.channels)
    ]
    measured = [record for record in records if record["valid_pixels"]]
    return ModalityStatistics(
        num_samples=len(records),
        pixels=pixels,
        valid_pixels=valid,
        saturated_pixels=sum(record["saturated_pixels"] for record in records),
        lowest=min((record["lowest"] for record in measured), default=None),
        highest=max((record["highest"] for record in measured), default=None),
        mean=tuple(mean for mean, _ in moments),
        std=tuple(std for _, std in moments),
    )


def _moments(count: int, total: int, squares: int) -> tuple[float, float]:
    """Mean and standard deviation in [0, 1] from sums in steps; Python integers do not overflow."""
    if not count:
        return math.nan, math.nan
    variance = (count * squares - total * total) / (count * count)
    return total / count / UNIT_STEPS, math.sqrt(variance) / UNIT_STEPS


MODALITY_COLUMNS = ("modality", "samples", "not 0", "values", "unit", "saturated", "mean", "std")


def modality_rows(
    statistics: SplitStatistics, specs: Mapping[str, ModalitySpec]
) -> list[tuple[str, ...]]:
    """The table of a split's modalities as text, under `MODALITY_COLUMNS`."""
    rows = []
    for name, found in statistics.modalities.items():
        reach = "-" if found.lowest is None else f"{found.lowest} to {found.highest}"
        saturated = f"{found.saturated_pixels / max(1, found.pixels):.2%}"
        moments = ["  ".join(f"{v:.3f}" for v in values) for values in (found.mean, found.std)]
        held = f"{found.num_samples} of {statistics.num_samples}"
        valid = "-" if math.isnan(found.valid_share) else f"{found.valid_share:.1%}"
        rows.append((name, held, valid, reach, specs[name].unit, saturated, *moments))
    return rows
