"""The report's tables per condition, per corner case and of corrupted inputs.

Scores are fractions; the template prints them in per cent.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from flows.report.score_lines import group_lines, joined, missing_lines, noise_lines
from flows.report.sources import RunRow

KINDS = {
    "condition": ("Conditions", "under the condition"),
    "corner_case": ("Corner cases", "in the corner case"),
}
"""Ways to group the samples, as `evaluation.json` names them, to a title and a phrase."""


def group_tables(main: RunRow, columns: Mapping[str, tuple[str, ...]]) -> list[dict[str, Any]]:
    """One table a kind of group that the data set has; one line a subset of `columns` (name to subset),
    then mean and worst of all subsets."""
    scores = main.evaluation
    entries = {frozenset(entry["modalities"]): entry for entry in scores["subsets"]}
    tables = []
    for kind, (title, words) in KINDS.items():
        groups = group_lines(scores, kind)
        lines = [
            {
                "name": name,
                "scores": [entry[f"per_{kind}"][group.name]["miou"] for group in groups],
                "overall": entry["miou"],
            }
            for name, entry in ((n, entries[frozenset(subset)]) for n, subset in columns.items())
        ]
        several = len(scores["subsets"]) > 1
        summaries = [(f"mean of {len(entries)} subsets", "mean"), ("worst subset", "worst")]
        overall = {"mean": scores["mean"], "worst": scores["worst"]["miou"]}
        for name, field in summaries if several else ():
            by_group = [getattr(group, field) for group in groups]
            lines.append({"name": name, "scores": by_group, "overall": overall[field]})
        if groups:
            tables.append({"title": title, "words": words, "groups": groups, "lines": lines})
    return tables


def robust_values(rows: Sequence[RunRow], styles: Sequence[Any]) -> dict[str, Any]:
    """The template's `robust` (None if no run has such scores): scores of every run that has them,
    and the main run's subsets."""
    measured = [
        {
            "row": style,
            "clean": row.evaluation["all"],
            "clean_absent_zero": row.evaluation["absent_zero"]["all"],
            "missing": missing_lines(row.evaluation),
            "noise": noise_lines(row.evaluation),
        }
        for row, style in zip(rows, styles, strict=True)
        if row.evaluation["robustness"]
    ]
    main = rows[0].evaluation["robustness"]
    seeds = {row.evaluation["robustness"]["seed"] for row in rows if row.evaluation["robustness"]}
    values = {
        "runs": measured,
        "seeds": ", ".join(map(str, sorted(seeds))),
        "heads": [table["name"] for table in main["missing"]] if main else [],
        "subsets": _subset_lines(main) if main else [],
    }
    return {"robust": values if measured else None}


def _subset_lines(robustness: Mapping[str, Any]) -> list[dict[str, Any]]:
    tables = [table["subsets"] for table in robustness["missing"]]
    return [
        {"name": joined(entries[0]["modalities"]), "scores": [entry["miou"] for entry in entries]}
        for entries in zip(*tables, strict=True)
    ]
