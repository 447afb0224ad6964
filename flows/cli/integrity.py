"""`any2seg verify`, `repair`, `gc` and `audit`: is what lies in a workspace right, and what may go?

Each ends with exit code 1 if something is wrong that it did not mend. Stages are imported when they run.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from flows.cli.console import ConfigPath, Overrides, out
from flows.integrity.finding import Finding
from pipeline.config.config import Config
from pipeline.config.load import load_config, rows
from pipeline.errors import ConfigError
from pipeline.workspace import Workspace

JsonFile = Annotated[
    Path | None, typer.Option("--json", metavar="FILE", help="Write the findings as JSON, too.")
]
BYTES_A_MB = 1e6


def verify(
    config: ConfigPath,
    overrides: Overrides = None,
    deep: Annotated[
        bool, typer.Option("--deep", help="Read every byte and compare it with its digest.")
    ] = False,
    json_file: JsonFile = None,
) -> None:
    """Examine shards, manifest, embeddings, records, prompts and runs. Changes nothing.

    Each finding is printed with its place and the command that mends it. Exit code 1 if there is any.
    """
    from flows.integrity.verify import verify as examine

    loaded = load_config(config, overrides or ())
    found = examine(loaded, Workspace.of(loaded), deep=deep)
    for finding in found.findings:
        _print_finding(finding, config, overrides)
    for note in found.not_examined:
        _say(f"not examined: {note}")
    counted = ", ".join(f"{number} {what}" for what, number in found.examined.items())
    depth = "every byte" if deep else "records and sizes (--deep reads every byte)"
    _say(f"Examined {counted}: {depth}. {len(found.findings)} findings.")
    if json_file is not None:
        findings = [finding.as_json() for finding in found.findings]
        document = {"deep": deep, "examined": dict(found.examined), "findings": findings}
        json_file.write_text(json.dumps(document, indent=2) + "\n")
    if found.findings:
        raise typer.Exit(1)


def repair(
    config: ConfigPath,
    overrides: Overrides = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only say what would be done.")
    ] = False,
    deep: Annotated[
        bool, typer.Option(help="Read every byte to find what is broken, or look from outside.")
    ] = True,
) -> None:
    """Make again exactly what is broken; what cannot be made again is named and left.

    A shard is replaced only by the very same bytes: if its source has changed, it is refused.
    """
    from flows.integrity.repair import repair as mend

    loaded = load_config(config, overrides or ())
    report = mend(loaded, Workspace.of(loaded), deep=deep, dry_run=dry_run)
    for finding in report.mended:
        _say(f"{'would mend' if dry_run else 'mended'}: {finding}")
    for left in report.left:
        _say(f"left: {left.finding}")
        _say(f"  because: {_command(left.reason, config, overrides)}")
    _say(f"{len(report.mended)} {'to mend' if dry_run else 'mended'}, {len(report.left)} left.")
    if report.left:
        raise typer.Exit(1)


def gc(
    places: Annotated[
        list[str],
        typer.Argument(
            metavar="WORKSPACE|CONFIG...",
            help="The workspace, and any configs that are still used; one config names its workspace.",
        ),
    ],
    delete: Annotated[bool, typer.Option("--delete", help="Delete what is listed.")] = False,
    runs: Annotated[bool, typer.Option("--runs", help="List unfinished runs as well.")] = False,
) -> None:
    """List datasets, embeddings and prompts that no run and no given config refers to.

    Nothing is deleted without --delete, and no run ever.
    """
    from flows.integrity.gc import collect, unfinished_runs
    from flows.integrity.gc import delete as delete_items

    workspace, configs = _places(places)
    collection = collect(workspace, configs)
    table = Table("what", "where", "MB")
    for item in collection.items:
        table.add_row(item.kind, _below(item.path, workspace), f"{item.num_bytes / BYTES_A_MB:.1f}")
    for run in unfinished_runs(workspace) if runs else ():
        table.add_row(
            f"run at step {run.steps_done}/{run.steps}", _below(run.path, workspace), "kept"
        )
    out.print(table)
    total = sum(item.num_bytes for item in collection.items) / BYTES_A_MB
    _say(
        f"{len(collection.items)} things, {total:.1f} MB, that {collection.num_referrers} "
        "configs and runs do not refer to."
    )
    if not delete:
        _say("Nothing was deleted; --delete does.")
        return
    busy = delete_items(workspace, collection)
    for item in busy:
        _say(f"left: {item.path}: another process is writing there")
    _say(f"Deleted {len(collection.items) - len(busy)}.")


def audit(
    config: ConfigPath,
    overrides: Overrides = None,
    share: Annotated[
        float,
        typer.Option(min=0.0, max=1.0, help="Share of the cached rows; at least 8 are taken."),
    ] = 0.001,
    tolerance: Annotated[
        float | None,
        typer.Option(min=0.0, help="Largest 1 - cosine; default: what rounding explains."),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Draws the rows.")] = 0,
    device: Annotated[
        str, typer.Option(help="auto, cpu, cuda or mps; default: the config's.")
    ] = "",
) -> None:
    """Compute a random share of the cached embeddings again and compare them with the cache.

    Exit code 1, naming the samples, if one drifted beyond the tolerance.
    """
    from flows.integrity.audit import audit as compute

    loaded = load_config(config, overrides or ())
    report = compute(
        loaded,
        Workspace.of(loaded),
        share=share,
        tolerance=tolerance,
        seed=seed,
        device=device or None,
    )
    table = Table(
        "modality", "output", "rows", "1 - cos, worst", "median", "largest |diff|", "alarms"
    )
    for row in report.rows:
        drifts = (f"{1 - row.cosine_min:.2g}", f"{1 - row.cosine_median:.2g}", f"{row.max_abs:.2g}")
        table.add_row(row.modality, row.output, str(row.num_rows), *drifts, str(row.num_alarms))
    out.print(table)
    for row in report.rows:
        for alarm in row.alarms:
            _say(
                f"{alarm.key}: {row.modality} {row.output}: 1 - cosine {1 - alarm.cosine:.2g}, "
                f"tolerance {report.tolerance:.2g}"
            )
    _say(f"Tolerance {report.tolerance:.2g}. Record: {report.record}")
    if not report.passed:
        raise typer.Exit(1)


def _places(places: Sequence[str]) -> tuple[Workspace, list[Config]]:
    """The one workspace that is meant, and all rows of the configs that were named."""
    configs = [load_config(Path(place)) for place in places if place.endswith(".toml")]
    named = [place for place in places if not place.endswith(".toml")]
    roots = {str(Workspace.of(config).root): Workspace.of(config) for config in configs}
    for place in named:
        workspace = _workspace(place)
        roots[str(workspace.root)] = workspace
    if len(roots) != 1:
        raise ConfigError(f"expected one workspace, found {', '.join(roots)}")
    [workspace] = roots.values()
    return workspace, [row for config in configs for row in rows(config).values()]


def _workspace(place: str) -> Workspace:
    from pipeline.storage.remote_path import RemotePath

    if "://" in place:
        return Workspace(RemotePath.of(place))
    if not Path(place).is_dir():
        raise ConfigError(f"{place}: expected a workspace's folder or a config that ends in .toml")
    return Workspace(Path(place).resolve())


def _below(path: Any, workspace: Workspace) -> str:
    return str(path)[len(str(workspace.root)) + 1 :]


def _print_finding(finding: Finding, config: Path, overrides: Sequence[str] | None) -> None:
    _say(str(finding))
    _say(f"  remedy: {_command(finding.remedy, config, overrides)}")


def _command(remedy: str, config: Path, overrides: Sequence[str] | None) -> str:
    """The remedy with the configuration that was given in the place of `CONFIG`."""
    given = [str(config), *(part for value in overrides or () for part in ("--set", value))]
    return remedy.replace("CONFIG", shlex.join(given))


def _say(text: str) -> None:
    out.print(text, markup=False, highlight=False, soft_wrap=True)
