"""`any2seg verify`, `repair`, `gc` and `audit`: check a workspace, fix it, free its unused space.

Each ends with exit code 1 if a problem remains. Stages are imported when they run.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from flows.cli.console import ConfigArgument, SetOption, out, print_line
from flows.integrity.finding import Finding
from pipeline.config.config import Config
from pipeline.config.load import load_config, rows
from pipeline.errors import ConfigError
from pipeline.workspace import Workspace

JsonFile = Annotated[
    Path | None, typer.Option("--json", metavar="FILE", help="Also write the findings as JSON.")
]
BYTES_A_MB = 1e6


def verify(
    config: ConfigArgument,
    overrides: SetOption = None,
    deep: Annotated[
        bool, typer.Option("--deep", help="Read every byte and compare it with its digest.")
    ] = False,
    json_file: JsonFile = None,
) -> None:
    """Verify shards, manifest, embeddings, records, prompts and runs. Changes nothing.

    Prints each finding with its place and the command that fixes it. Exit code 1 if there is any.
    """
    from flows.integrity.verify import verify as examine

    loaded = load_config(config, overrides or ())
    verification = examine(loaded, Workspace.of(loaded), deep=deep)
    for finding in verification.findings:
        _print_finding(finding, config, overrides)
    for note in verification.not_examined:
        print_line(f"not examined: {note}")
    counts = ", ".join(f"{number} {what}" for what, number in verification.examined.items())
    depth = "every byte" if deep else "records and sizes (--deep reads every byte)"
    print_line(f"Examined {counts}: {depth}. {len(verification.findings)} findings.")
    if json_file is not None:
        findings = [finding.as_json() for finding in verification.findings]
        document = {"deep": deep, "examined": dict(verification.examined), "findings": findings}
        json_file.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
    if verification.findings:
        raise typer.Exit(1)


def repair(
    config: ConfigArgument,
    overrides: SetOption = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print what would be fixed and change nothing.")
    ] = False,
    deep: Annotated[bool, typer.Option(help="Read every byte, or only records and sizes.")] = True,
) -> None:
    """Rebuild exactly what is corrupt. What cannot be rebuilt is named and left as it is.

    A shard is replaced only by identical bytes: if its source has changed, it is left.
    """
    from flows.integrity.repair import repair as repair_workspace

    loaded = load_config(config, overrides or ())
    report = repair_workspace(loaded, Workspace.of(loaded), deep=deep, dry_run=dry_run)
    for finding in report.fixed:
        print_line(f"{'would fix' if dry_run else 'fixed'}: {finding}")
    for left in report.left:
        print_line(f"left: {left.finding}")
        print_line(f"  because: {_command(left.reason, config, overrides)}")
    print_line(f"{len(report.fixed)} {'to fix' if dry_run else 'fixed'}, {len(report.left)} left.")
    if report.left:
        raise typer.Exit(1)


def gc(
    paths: Annotated[
        list[str],
        typer.Argument(
            metavar="WORKSPACE|CONFIG...",
            help="A workspace and the configs still in use; one config alone implies its workspace.",
        ),
    ],
    delete: Annotated[bool, typer.Option("--delete", help="Delete what is listed.")] = False,
    runs: Annotated[bool, typer.Option("--runs", help="Also list unfinished runs.")] = False,
) -> None:
    """List datasets, embeddings and prompts that no run and no given config refers to.

    Deletes nothing without `--delete`, and never a run.
    """
    from flows.integrity.gc import collect, unfinished_runs
    from flows.integrity.gc import delete as delete_items

    workspace, configs = _workspace_and_configs(paths)
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
    print_line(
        f"{len(collection.items)} unused items, {total:.1f} MB; {collection.num_referrers} configs and "
        "runs were checked for references."
    )
    if not delete:
        print_line("Nothing was deleted; use --delete to delete.")
        return
    busy = delete_items(workspace, collection)
    for item in busy:
        print_line(f"left: {item.path}: another process is writing to it")
    print_line(f"Deleted {len(collection.items) - len(busy)}.")


def audit(
    config: ConfigArgument,
    overrides: SetOption = None,
    share: Annotated[
        float,
        typer.Option(min=0.0, max=1.0, help="Fraction of the cached rows; at least 8 rows."),
    ] = 0.001,
    tolerance: Annotated[
        float | None,
        typer.Option(min=0.0, help="Largest 1 - cosine; default: the rounding error."),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the random rows.")] = 0,
    device: Annotated[
        str, typer.Option(help="auto, cpu, cuda or mps; default: the config's.")
    ] = "",
) -> None:
    """Recompute a random part of the cached embeddings and compare it with the cache.

    Exit code 1 if a sample drifted beyond the tolerance; such samples are named.
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
            print_line(
                f"{alarm.key}: {row.modality} {row.output}: 1 - cosine {1 - alarm.cosine:.2g}, "
                f"tolerance {report.tolerance:.2g}"
            )
    print_line(f"Tolerance {report.tolerance:.2g}. Record: {report.record}")
    if not report.passed:
        raise typer.Exit(1)


def _workspace_and_configs(paths: Sequence[str]) -> tuple[Workspace, list[Config]]:
    """The one workspace that is meant, and all rows of the named configs."""
    configs = [load_config(Path(path)) for path in paths if path.endswith(".toml")]
    workspaces = [Workspace.of(config) for config in configs]
    workspaces += [_workspace(path) for path in paths if not path.endswith(".toml")]
    by_root = {str(workspace.root): workspace for workspace in workspaces}
    if len(by_root) != 1:
        raise ConfigError(f"expected one workspace, found {', '.join(by_root)}")
    [workspace] = by_root.values()
    return workspace, [row for config in configs for row in rows(config).values()]


def _workspace(path: str) -> Workspace:
    from pipeline.storage.remote_path import RemotePath

    if "://" in path:
        return Workspace(RemotePath.of(path))
    if not Path(path).is_dir():
        raise ConfigError(f"{path}: expected a workspace's folder or a config that ends in .toml")
    return Workspace(Path(path).resolve())


def _below(path: Any, workspace: Workspace) -> str:
    return str(path)[len(str(workspace.root)) + 1 :]


def _print_finding(finding: Finding, config: Path, overrides: Sequence[str] | None) -> None:
    print_line(str(finding))
    print_line(f"  remedy: {_command(finding.remedy, config, overrides)}")


def _command(remedy: str, config: Path, overrides: Sequence[str] | None) -> str:
    """The remedy with `CONFIG` replaced by the config and the overrides of this call."""
    given = [str(config), *(part for value in overrides or () for part in ("--set", value))]
    return remedy.replace("CONFIG", shlex.join(given))
