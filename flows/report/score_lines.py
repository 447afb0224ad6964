"""Scores in the lines that a person reads: on the command line, in the report, in Prefect's UI.

All modalities, the mean over the subsets and the worst subset always come together, with what they
were scored on. From `evaluation.json` (storage_layout.md) alone; pure, figures stay fractions.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pipeline.core.units_text import as_percent

AVERAGES = ("average", "expected_0.2", "expected_0.1", "expected_0.05")
"""Figures of a table of subsets in the robustness benchmark (`student.evaluation.robustness_scores`)."""


@dataclass(frozen=True, slots=True)
class GroupLine:
    """A condition or corner case."""

    name: str
    num_samples: int
    all: float | None
    mean: float | None
    worst: float | None
    worst_subset: str


@dataclass(frozen=True, slots=True)
class MissingLine:
    """EMM or RMM: what is left when modalities go missing."""

    name: str
    protocol: str
    averages: Sequence[float | None]
    """See `AVERAGES`; strict."""
    absent_zero: float | None
    """The average, compatible with published code."""
    worst: float
    worst_subset: str


@dataclass(frozen=True, slots=True)
class NoiseLine:
    """NM: all modalities under noise."""

    name: str
    protocol: str
    miou: float | None
    absent_zero: float | None


def joined(modalities: Sequence[str]) -> str:
    """`rgb + depth`."""
    return " + ".join(modalities)


def headline(scores: Mapping[str, Any]) -> str:
    """All, mean and worst in one line."""
    worst = scores["worst"]
    return (
        f"all {as_percent(scores['all'])}, mean of {len(scores['subsets'])} subsets "
        f"{as_percent(scores['mean'])}, worst {as_percent(worst['miou'])} ({joined(worst['modalities'])})"
    )


def setting(scores: Mapping[str, Any]) -> str:
    """What the figures were scored on, and how."""
    return (
        f"split {scores['split']}, {scores['num_samples']} samples, {scores['protocol']}, "
        f"{view(scores)}, step {scores['step']}, seed {scores['seed']}"
    )


def view(scores: Mapping[str, Any]) -> str:
    """How much of a picture the student saw at once."""
    side = scores["settings"]["window_px"]
    return f"windows of {side} px" if side else "whole pictures"


def group_lines(scores: Mapping[str, Any], kind: str) -> list[GroupLine]:
    """A line for every `condition` or `corner_case`."""
    return [
        _group_line(name, found["num_samples"], scores["subsets"], f"per_{kind}")
        for name, found in scores[f"{kind}s"].items()
    ]


def _group_line(
    name: str, num_samples: int, subsets: Sequence[Mapping[str, Any]], field: str
) -> GroupLine:
    figures = [(row[field][name]["miou"], joined(row["modalities"])) for row in subsets]
    known = [(value, subset) for value, subset in figures if value is not None]
    if not known:
        return GroupLine(name, num_samples, None, None, None, "")
    mean = sum(value for value, _ in known) / len(known)
    return GroupLine(name, num_samples, figures[-1][0], mean, *min(known))


def missing_lines(scores: Mapping[str, Any]) -> list[MissingLine]:
    """EMM in both protocols and RMM by share lost; none without `evaluate.robustness`."""
    return [
        MissingLine(
            name=table["name"],
            protocol=table["protocol"],
            averages=[table[name] for name in AVERAGES],
            absent_zero=table["absent_zero"]["average"],
            worst=table["worst"]["miou"],
            worst_subset=joined(table["worst"]["modalities"]),
        )
        for table in (scores["robustness"] or {"missing": ()})["missing"]
    ]


def noise_lines(scores: Mapping[str, Any]) -> list[NoiseLine]:
    """NM by level; none without `evaluate.robustness`."""
    return [
        NoiseLine(
            name=found["name"],
            protocol=found["protocol"],
            miou=found["miou"],
            absent_zero=found["miou_absent_zero"],
        )
        for found in (scores["robustness"] or {"noise": ()})["noise"]
    ]
