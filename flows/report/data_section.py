"""The report's section on the data: value statistics and co-availability, as `prepare` measured them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from pipeline.modalities import ModalitySpec
from pipeline.shards.statistics import MODALITY_COLUMNS, SplitStatistics, modality_rows

NUM_SETS_SHOWN = 8


def data_values(
    statistics: Mapping[str, SplitStatistics], specs: Mapping[str, ModalitySpec]
) -> dict[str, Any]:
    """Values of the section: a table of modalities a split, and which of them occur together."""
    return {
        "data_columns": MODALITY_COLUMNS,
        "data_splits": [
            {
                "name": split,
                "num": measured.num_samples,
                "rows": modality_rows(measured, specs),
                "sets": list(_sets(measured)),
                "num_more": max(0, len(measured.availability) - NUM_SETS_SHOWN),
            }
            for split, measured in statistics.items()
        ],
    }


def _sets(measured: SplitStatistics) -> Iterator[str]:
    """`63 samples with rgb, depth`; nothing if every sample has the same modalities."""
    if len(measured.availability) > 1:
        for names, count in list(measured.availability.items())[:NUM_SETS_SHOWN]:
            yield f"{count} sample{'s' if count > 1 else ''} with {', '.join(names)}"
