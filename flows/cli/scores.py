"""What `any2seg evaluate` prints: every subset, conditions, corrupted inputs. Imports no torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.markup import escape
from rich.table import Table

from flows.cli.console import out, print_line
from flows.report.score_lines import (
    group_lines,
    headline,
    joined,
    missing_lines,
    noise_lines,
    setting,
)
from pipeline.config.config import Config
from pipeline.core.units_text import as_percent
from pipeline.storage.files import read_json
from pipeline.workspace import Workspace
from student.runs.inputs import identify

GROUPS = {"condition": "Conditions", "corner_case": "Corner cases"}


def print_scores(config: Config) -> None:
    """Print the tables of a scored run."""
    scores = read_json(identify(config, Workspace.of(config)).evaluation)
    out.print(_subset_table(scores))
    for kind, title in GROUPS.items():
        if scores[f"{kind}s"]:
            out.print(_group_table(scores, kind, title))
    if scores["robustness"]:
        out.print(_missing_table(scores))
        out.print(_noise_table(scores))
        for score in (*scores["robustness"]["missing"], *scores["robustness"]["noise"]):
            print_line(f"{score['name']}: {score['protocol']}")
        print_line(f"Corruption seed {scores['robustness']['seed']}.")
    print_line(f"mIoU in %: {headline(scores)}")
    print_line(f"Compatible, absent classes as 0: {headline(scores | scores['absent_zero'])}")
    print_line(setting(scores))


def _subset_table(scores: Mapping[str, Any]) -> Table:
    table = _table("Subsets", "modalities", "mIoU", "absent classes as 0", "samples")
    for row in scores["subsets"]:
        miou = as_percent(row["miou"]), as_percent(row["miou_absent_zero"])
        table.add_row(escape(joined(row["modalities"])), *miou, str(row["num_samples"]))
    return table


def _group_table(scores: Mapping[str, Any], kind: str, title: str) -> Table:
    table = _table(title, kind.replace("_", " "), "all", "mean", "worst", "worst subset", "samples")
    for line in group_lines(scores, kind):
        miou = (as_percent(line.all), as_percent(line.mean), as_percent(line.worst))
        table.add_row(escape(line.name), *miou, escape(line.worst_subset), str(line.num_samples))
    return table


def _missing_table(scores: Mapping[str, Any]) -> Table:
    heads = ("average", "E(0.2)", "E(0.1)", "E(0.05)", "worst", "absent as 0")
    table = _table("Missing modalities", "benchmark", *heads)
    for line in missing_lines(scores):
        worst = f"{as_percent(line.worst)} ({line.worst_subset})"
        averages = map(as_percent, line.averages)
        table.add_row(line.name, *averages, escape(worst), as_percent(line.absent_zero))
    return table


def _noise_table(scores: Mapping[str, Any]) -> Table:
    table = _table("Noise on all modalities", "level", "mIoU", "absent classes as 0")
    table.add_row("none", as_percent(scores["all"]), as_percent(scores["absent_zero"]["all"]))
    for line in noise_lines(scores):
        table.add_row(line.name, as_percent(line.miou), as_percent(line.absent_zero))
    return table


def _table(title: str, first: str, *others: str) -> Table:
    table = Table(title=title, title_justify="left")
    table.add_column(first, no_wrap=True)
    for name in others:
        table.add_column(name, justify="left" if name == "worst subset" else "right")
    return table
