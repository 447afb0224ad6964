"""Scores as lines of text: on the command line, in the report, in Prefect's UI.

All modalities, the mean over the subsets and the worst subset always come together, with the data they
were scored on. Input is `evaluation.json` (storage_layout.md); scores stay fractions.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pipeline.core.units_text import as_percent

AVERAGES = ("average", "expected_0.2", "expected_0.1", "expected_0.05")
"""Averages over the subsets in the robustness benchmark (`student.evaluation.robustness_scores`)."""


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
    """EMM or RMM: scores with missing modalities."""

    name: str
    protocol: str
    averages: Sequence[float | None]
    """In the order of `AVERAGES`; strict."""
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
    """What the scores were computed on, and how."""
    return (
        f"split {scores['split']}, {scores['num_samples']} samples, {scores['protocol']}, "
        f"{view(scores)}, step {scores['step']}, seed {scores['seed']}"
    )


def view(scores: Mapping[str, Any]) -> str:
    """The student's field of view: windows or whole images."""
    side = scores["settings"]["window_px"]
    return f"windows of {side} px" if side else "whole images"


def group_lines(scores: Mapping[str, Any], kind: str) -> list[GroupLine]:
    """A line for every `condition` or `corner_case`."""
    return [
        _group_line(name, group["num_samples"], scores["subsets"], f"per_{kind}")
        for name, group in scores[f"{kind}s"].items()
    ]


def _group_line(
    name: str, num_samples: int, subsets: Sequence[Mapping[str, Any]], field: str
) -> GroupLine:
    by_subset = [(row[field][name]["miou"], joined(row["modalities"])) for row in subsets]
    scored = [(value, subset) for value, subset in by_subset if value is not None]
    if not scored:
        return GroupLine(name, num_samples, None, None, None, "")
    mean = sum(value for value, _ in scored) / len(scored)
    return GroupLine(name, num_samples, by_subset[-1][0], mean, *min(scored))


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
            name=level["name"],
            protocol=level["protocol"],
            miou=level["miou"],
            absent_zero=level["miou_absent_zero"],
        )
        for level in (scores["robustness"] or {"noise": ()})["noise"]
    ]
