"""`any2seg status`: what is done, missing and stale. Imports no torch."""

from __future__ import annotations

import json
from typing import Annotated

import typer
from rich.markup import escape
from rich.table import Table

from flows.cli.console import ConfigArgument, SetOption, out, print_line
from flows.planning.coverage import CoverageMap, CoverageRow
from pipeline.config.config import Config
from pipeline.config.load import load_config
from pipeline.workspace import Workspace

STATES = ("there", "missing", "stale", "damaged")


def status(
    config: ConfigArgument,
    overrides: SetOption = None,
    coverage: Annotated[
        bool, typer.Option("--coverage", help="Also count by split, modality and output.")
    ] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print JSON; with --coverage, the state of every shard.")
    ] = False,
) -> None:
    """Show what is done, missing and stale, by stage and modality. Changes nothing.

    Also reports source files of committed samples that were removed or altered since, and what to do.
    """
    from flows.planning.status import status_rows

    loaded = load_config(config, overrides or ())
    workspace = Workspace.of(loaded)
    rows = status_rows(loaded, workspace)
    coverage_by_shard = _coverage(loaded, workspace) if coverage else None
    if as_json:
        document = {"rows": [row.as_json() for row in rows]}
        if coverage_by_shard is not None:
            document["coverage"] = coverage_by_shard.as_json()
        print(json.dumps(document, indent=2))
        return
    _print_rows(rows)
    if coverage_by_shard is not None:
        _print_coverage(coverage_by_shard)


def _coverage(config: Config, workspace: Workspace) -> CoverageMap:
    from flows.planning.coverage import coverage_map
    from pipeline.shards.manifest import Manifest

    return coverage_map(config, workspace, Manifest.load(workspace.dataset(config)))


def _print_rows(rows: list[CoverageRow]) -> None:
    table = Table("stage", "what", "unit", "there", "missing", "stale", "note")
    for row in rows:
        counts = (str(row.committed), _marked(row.missing, "red"), _marked(row.stale, "yellow"))
        table.add_row(row.stage, row.what, row.unit, *counts, escape(row.note))
    out.print(table)
    for row in rows:
        for line in row.advice:
            print_line(line)


def _print_coverage(coverage: CoverageMap) -> None:
    table = Table("split", "modality", "output", *STATES)
    for names, counts in coverage.counts.items():
        first, *others = (counts[state] for state in STATES)
        table.add_row(*names, str(first), *(_marked(count, "red") for count in others))
    out.print(table)


def _marked(count: int, colour: str) -> str:
    return f"[{colour}]{count}[/]" if count else "0"
