"""Statistics of a dataset: measured sample by sample while shards are written, summed on demand.

`measure` gives the manifest's record of one array: integer sums of its [0, 1] values in steps of
1 / 65535. Integer sums do not depend on the order, so a dataset that was killed, resumed or extended
has the same statistics as one prepared in one run. `summarise` adds the records of a split.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache, reduce
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from pipeline.modalities import ModalitySpec, to_unit_range

UNIT_STEPS = 65_535
"""Steps of the [0, 1] range in which values are summed; 8-bit codes are whole steps."""

STATISTICS = pa.struct(
    [
        ("name", pa.string()),
        ("valid_pixels", pa.int64()),
        ("saturated_pixels", pa.int64()),
        ("lowest", pa.int32()),
        ("highest", pa.int32()),
        ("sums", pa.list_(pa.int64())),
        ("squares", pa.list_(pa.int64())),
    ]
)
"""Type of a `measure` record in Parquet."""
FACTS_SCHEMA = pa.schema(
    [
        ("height", pa.int32()),
        ("width", pa.int32()),
        ("modalities", pa.list_(pa.string())),
        ("class_pixels", pa.list_(pa.int64())),
        ("ignored_pixels", pa.int64()),
        ("statistics", pa.list_(STATISTICS)),
    ]
)
"""The manifest's columns that `summarise` reads."""


@dataclass(frozen=True, slots=True)
class ModalityStatistics:
    """One modality of a split, over the samples that have it."""

    num_samples: int
    pixels: int
    """Pixels of those samples."""
    valid_pixels: int
    """Pixels with a value other than 0 in any channel: ranges measured, events seen."""
    saturated_pixels: int
    """Pixels at or above `max_value` in any channel: the student cannot tell them apart."""
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
    """What `Manifest.statistics` returns for a split."""

    num_samples: int
    modalities: Mapping[str, ModalityStatistics]
    class_pixels: Mapping[str, int]
    """Class name to labelled pixels."""
    ignored_pixels: int
    availability: Mapping[tuple[str, ...], int]
    """Each set of present modalities to its number of samples; most frequent first."""

    def class_shares(self) -> dict[str, float]:
        """Class name to its share of the labelled pixels."""
        total = max(1, sum(self.class_pixels.values()))
        return {name: count / total for name, count in self.class_pixels.items()}


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


def facts_table(rows: Sequence[Mapping[str, Any]]) -> pa.Table:
    """Manifest rows (dicts) as the table that `summarise` takes."""
    facts = [{name: row[name] for name in FACTS_SCHEMA.names} for row in rows]
    return pa.Table.from_pylist(facts, schema=FACTS_SCHEMA)


def summarise(
    facts: pa.Table, specs: Mapping[str, ModalitySpec], classes: Sequence[str]
) -> SplitStatistics:
    """Add up the `FACTS_SCHEMA` columns of a split; `specs` and `classes` as in `dataset.json`."""
    facts = facts.combine_chunks()
    return SplitStatistics(
        num_samples=len(facts),
        modalities={name: _modality(name, spec, facts) for name, spec in specs.items()},
        class_pixels=dict(
            zip(classes, sum_lists(facts["class_pixels"], len(classes)), strict=True)
        ),
        ignored_pixels=_exact_sum(facts["ignored_pixels"]),
        availability=_availability(facts["modalities"]),
    )


def sum_lists(lists: pa.ChunkedArray, length: int) -> list[int]:
    """Exact element-wise sums of lists of `length` integers each."""
    values_NL = pc.list_flatten(lists).to_numpy().reshape(-1, length)
    return [_exact_sum(values_NL[:, column]) for column in range(length)]


def _exact_sum(values: Any) -> int:
    """Sum of non-negative 64-bit integers; the sum itself may exceed 64 bits."""
    numbers = np.asarray(values, dtype=np.int64)
    # High and low halves apart: each sum stays below 2^63 for up to 2^31 numbers.
    return (int((numbers >> 32).sum()) << 32) + int((numbers & 0xFFFF_FFFF).sum())


def _availability(modalities: pa.ChunkedArray) -> dict[tuple[str, ...], int]:
    """Each set of present modalities to its number of samples; most frequent first."""
    joined = pc.binary_join(modalities, ",")  # a modality's name has no comma
    counts = {
        tuple(entry["values"].split(",")): entry["counts"]
        for entry in pc.value_counts(joined).to_pylist()
    }
    return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))


def _modality(name: str, spec: ModalitySpec, facts: pa.Table) -> ModalityStatistics:
    records = pc.list_flatten(facts["statistics"])
    indices = np.flatnonzero(pc.equal(pc.struct_field(records, "name"), name).to_numpy())
    parents = pc.list_parent_indices(facts["statistics"]).to_numpy()[indices]
    columns = {f.name: pc.struct_field(records, f.name).take(indices) for f in records.type}
    areas = np.asarray(facts["height"], np.int64) * np.asarray(facts["width"], np.int64)
    pixels, valid = int(areas[parents].sum()), _exact_sum(columns["valid_pixels"])
    sums, squares = (sum_lists(columns[field], spec.channels) for field in ("sums", "squares"))
    # Millimetres: 0 means no return, so only valid pixels have a value.
    counted = valid if spec.unit == "mm" else pixels
    moments = [_moments(counted, *both) for both in zip(sums, squares, strict=True)]
    return ModalityStatistics(
        num_samples=len(indices),
        pixels=pixels,
        valid_pixels=valid,
        saturated_pixels=_exact_sum(columns["saturated_pixels"]),
        lowest=pc.min(columns["lowest"]).as_py(),
        highest=pc.max(columns["highest"]).as_py(),
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
    for name, modality in statistics.modalities.items():
        lowest, highest = modality.lowest, modality.highest
        reach = "-" if lowest is None else f"{lowest} to {highest}"
        saturated = f"{modality.saturated_pixels / max(1, modality.pixels):.2%}"
        moments = ["  ".join(f"{v:.3f}" for v in vs) for vs in (modality.mean, modality.std)]
        samples = f"{modality.num_samples} of {statistics.num_samples}"
        valid = "-" if math.isnan(modality.valid_share) else f"{modality.valid_share:.1%}"
        rows.append((name, samples, valid, reach, specs[name].unit, saturated, *moments))
    return rows
