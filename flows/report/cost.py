"""Cost of the teacher pass and of training as the report prints it, and the cache's break-even point."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from flows.report.sources import RunRow, Sources
from pipeline.config.config import Config
from pipeline.core.units_text import as_duration, as_size


@dataclass(frozen=True, slots=True)
class RowStyle:
    """Name, colour and mark of a run everywhere in the page."""

    name: str
    colour: str
    """CSS variable."""
    sign: str
    """Character that resembles the chart's mark."""


def cost_values(sources: Sources, styles: Sequence[RowStyle]) -> dict[str, Any]:
    """The template's `passes`, `pass_total`, `trainings` and `break_even`."""
    passes = sources.passes
    lines = [
        {
            "modality": p.modality,
            "tower": p.tower,
            "num_samples": p.num_samples,
            "time": as_duration(p.seconds),
            "each": per_sample(p.seconds, p.num_samples),
            "stored": as_size(p.num_bytes),
        }
        for p in passes
    ]
    num = max((p.num_samples for p in passes), default=0)
    seconds = sum(p.seconds for p in passes)
    return {
        "passes": lines,
        "pass_total": {
            "num_samples": num,
            "time": as_duration(seconds),
            "each": per_sample(seconds, num),
            "stored": as_size(sum(p.num_bytes for p in passes)),
        },
        "trainings": [
            _training(row, style)
            for row, style in zip(sources.rows, styles, strict=True)
            if row.metrics
        ],
        "break_even": break_even(seconds, num, sources.rows[0].config),
    }


def _training(row: RunRow, style: RowStyle) -> dict[str, Any]:
    waited_s = float(np.nansum(row.metrics["data_s"]))
    seconds = waited_s + float(np.nansum(row.metrics["step_s"]))
    rate = len(row.metrics["step"]) / seconds if seconds else math.nan
    return {
        "row": style,
        "time": as_duration(seconds),
        "steps_s": f"{rate:.2f}",
        "samples_s": f"{rate * row.config.train.batch_size:.1f}",
        "waiting": f"{100 * waited_s / seconds:.1f} %" if seconds else "-",
    }


def per_sample(seconds: float, num_samples: int) -> str:
    """Milliseconds a sample, three digits."""
    return f"{1000 * seconds / num_samples:.3g} ms" if num_samples else "-"


def break_even(pass_s: float, num_samples: int, config: Config) -> str:
    """The number of students from which one teacher pass is cheaper than a teacher in the training loop."""
    if not pass_s or not num_samples or not config.student.lscd.active:
        return ""
    seen = config.train.steps * config.train.batch_size
    inside = pass_s * seen / num_samples
    students = pass_s / inside
    first = (
        "the first student already pays for it"
        if students <= 1
        else f"it is paid for by student number {math.ceil(students)}"
    )
    return (
        f"One student looks at {seen:,} samples. With the teacher inside its training loop that would be "
        f"{as_duration(inside)} of tower time for every student; the pass took {as_duration(pass_s)} "
        f"once, for {num_samples:,} samples. So {first} (break-even at {students:.2g} students of this "
        "length)."
    )
