"""`any2seg status`: what is there, missing and stale. Changes nothing and imports no torch."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Annotated

import typer
from rich.markup import escape
from rich.table import Table

from flows.cli.console import ConfigPath, Overrides, out
from flows.planning.coverage import CoverageMap, CoverageRow
from pipeline.config.config import Config
from pipeline.config.load import load_config
from pipeline.workspace import Workspace

STATES = ("there", "missing", "stale", "damaged")


def status(
    config: ConfigPath,
    overrides: Overrides = None,
    coverage: Annotated[
        bool, typer.Option("--coverage", help="Also count by split, modality and output.")
    ] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print JSON; with --coverage every shard's state.")
    ] = False,
) -> None:
    """Show per stage and modality what is there, missing and stale. Changes nothing.

    Says too whether source files of committed samples were removed or altered since, and what to do then.
    """
    from flows.planning.status import status_rows

    loaded = load_config(config, overrides or ())
    workspace = Workspace.of(loaded)
    rows = status_rows(loaded, workspace)
    found = _coverage(loaded, workspace) if coverage else None
    if as_json:
        document = {"rows": [asdict(row) for row in rows]}
        if found is not None:
            document["coverage"] = found.as_json()
        print(json.dumps(document, indent=2))
        return
    _print_rows(rows)
    if found is not None:
        _print_coverage(found)


def _coverage(config: Config, workspace: Workspace) -> CoverageMap:
    from flows.planning.coverage import coverage_map
    from pipeline.shards.manifest import Manifest

    return coverage_map(config, workspace, Manifest.load(workspace.dataset(config)))


def _print_rows(rows: list[CoverageRow]) -> None:
    table = Table("stage", "what", "unit", "there", "missing", "stale", "note")
    for row in rows:
        counts = (str(row.there), _marked(row.missing, "red"), _marked(row.stale, "yellow"))
        table.add_row(row.stage, row.what, row.unit, *counts, escape(row.note))
    out.print(table)
    for row in rows:
        for line in row.advice:
            out.print(line, markup=False, highlight=False, soft_wrap=True)


def _print_coverage(found: CoverageMap) -> None:
    table = Table("split", "modality", "output", *STATES)
    for place, counts in found.counts.items():
        first, *others = (counts[state] for state in STATES)
        table.add_row(*place, str(first), *(_marked(count, "red") for count in others))
    out.print(table)


def _marked(count: int, colour: str) -> str:
    return f"[{colour}]{count}[/]" if count else "0"
