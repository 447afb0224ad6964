"""Per-step training metrics: one row a step, and the file that keeps them.

Writes `runs/<run-id>/metrics.parquet`, replaced as a whole; a metric that a step does not have is
null. Reading raises what `pipeline.shards.manifest.read_table` does.
"""

from __future__ import annotations

from typing import BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.shards.manifest import read_table
from pipeline.storage.files import write_atomic
from student.losses.objective import TERMS
from student.runs.run import Run

VALIDATION = ("val_all", "val_mean", "val_worst")
COLUMNS = ("loss", *TERMS, "grad_norm", *VALIDATION, "lr", "step_s", "data_s")
METRICS_SCHEMA = pa.schema([("step", pa.int64()), *((name, pa.float64()) for name in COLUMNS)])

_RECENT_STEPS = 50
"""Steps that a progress bar averages over."""

Row = dict[str, float]
"""`step` (counted from 1) and some of `COLUMNS`."""


def read_rows(run: Run) -> list[Row]:
    """The rows up to the last checkpoint, and possibly of some steps after it."""
    return [
        {name: value for name, value in row.items() if value is not None}
        for row in read_table(run.metrics).to_pylist()
    ]


def write_rows(run: Run, rows: list[Row]) -> None:
    """Replace the file."""
    complete = [{**dict.fromkeys(COLUMNS), **row} for row in rows]
    table = pa.Table.from_pylist(complete, schema=METRICS_SCHEMA)

    def write(file: BinaryIO) -> None:
        pq.write_table(table, file)

    write_atomic(run.metrics, write)


def rates(rows: list[Row], first: int) -> Row:
    """Steps per second and the fraction of the time spent waiting for data, after step `first`."""
    own = [row for row in rows if row["step"] > first]
    data_s = sum(row["data_s"] for row in own)
    total_s = data_s + sum(row["step_s"] for row in own)
    return {
        "last_loss": rows[-1]["loss"],
        "steps_per_s": len(own) / total_s if own else 0.0,
        "data_wait_share": data_s / total_s if own else 0.0,
    }


def note(rows: list[Row], first: int) -> str:
    """The last loss and the recent fraction of waiting for data, for a progress bar."""
    recent = rates(rows[-_RECENT_STEPS:], first)
    return f"loss {recent['last_loss']:.3f}, data {recent['data_wait_share']:.0%}"
