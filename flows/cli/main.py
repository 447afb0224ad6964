"""The `any2seg` command. Answers `--help` and `status` without importing torch or Prefect."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer
from platformdirs import user_cache_dir
from rich.console import Console
from rich.table import Table

from flows import stages
from flows.cli.console import ConfigPath, Overrides, out
from flows.cli.export import export
from flows.cli.integrity import audit, gc, repair, verify
from flows.cli.plan import plan
from flows.cli.predict import EXTRA, predict
from flows.cli.run import demo, refresh_teacher, retrain, run
from flows.cli.scores import print_scores
from flows.cli.serve import serve, server
from flows.cli.status import status
from flows.redact import redacted
from pipeline import VERSION
from pipeline.config.config import Config
from pipeline.config.load import MAIN_ROW, load_config, rows
from pipeline.core.retryable import TRY_AGAIN, worth_retrying
from pipeline.errors import Any2SegError, ConfigError
from pipeline.modalities import KINDS
from pipeline.workspace import Workspace

app = typer.Typer(
    name="any2seg",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    help="""Segmentation from any combination of sensors, taught by a cached LanguageBind.

    The teacher runs once (`precompute`), students train on its cached embeddings (`train`). Every command
    can be killed and called again: it goes on with the first thing that is missing.

    Start with `any2seg demo`; then copy a file from `configs/` and `any2seg run MY.toml`.""",
)
Row = Annotated[
    str, typer.Option(help="Which row: `main`, or the name of one in the config's `[compare]`.")
]
Tree = Annotated[Path, typer.Argument(metavar="PATH", help="The folder that holds the data set.")]
Dataset = Annotated[
    str,
    typer.Option(
        help="`deliver`, `mcubes`, `muses` or `folder`; default: by the names of folders."
    ),
]


def _load(path: Path, overrides: list[str] | None, row: str = MAIN_ROW) -> Config:
    configs = rows(load_config(path, overrides or ()))
    if row not in configs:
        raise ConfigError(f"--row {row}: expected one of {', '.join(configs)}")
    return configs[row]


def _run_stage(name: str, path: Path, overrides: list[str] | None, row: str) -> None:
    config = _load(path, overrides, row)
    report = stages.STAGES[name](config, Workspace.of(config))
    out.print(str(report), markup=False, highlight=False)
    for failure in report.failed:
        out.print(f"  refused {failure.unit}: {failure.reason}", markup=False, highlight=False)


app.command()(demo)
app.command()(run)
app.command()(refresh_teacher)
app.command()(retrain)


@app.command()
def prepare(config: ConfigPath, overrides: Overrides = None) -> None:
    """Write shards and manifest from the source data; new samples only."""
    _run_stage("prepare", config, overrides, MAIN_ROW)


@app.command()
def precompute(
    config: ConfigPath,
    overrides: Overrides = None,
    workers: Annotated[int, typer.Option(min=0, help="Processes; default: `scale.workers`.")] = 0,
    dask: Annotated[str, typer.Option(help="Dask scheduler; default: `scale.dask`.")] = "",
) -> None:
    """Run the teacher over every shard and class prompt that has no embeddings yet."""
    spread = [f"scale.workers={workers}"] if workers else []
    spread += [f"scale.dask={dask}"] if dask else []
    _run_stage("precompute", config, [*(overrides or ()), *spread], MAIN_ROW)


@app.command()
def describe(config: ConfigPath, overrides: Overrides = None) -> None:
    """Write scene descriptions (from labels, or by a captioning model) and embed them."""
    _run_stage("describe", config, overrides, MAIN_ROW)


@app.command()
def teacher(
    name: Annotated[str, typer.Argument(help="`languagebind-tiny`, a hub name, or a folder.")],
    revision: Annotated[str | None, typer.Option(help="Git revision of a hub name.")] = None,
    dtype: Annotated[str, typer.Option(help="float32, bfloat16 or float16.")] = "float32",
    device: Annotated[str, typer.Option(help="cpu, cuda, cuda:1, ...")] = "cpu",
) -> None:
    """Describe the towers of a teacher and run their self-tests.

    Exit code 1 if a check fails.
    """
    from teacher.check_tower import as_lines, check_towers

    cache = Path(user_cache_dir("any2seg"))
    passed = True
    for report in check_towers(name, cache=cache, revision=revision, dtype=dtype, device=device):
        passed = passed and report.passed
        for line in as_lines(report):
            out.print(line, markup=False, highlight=False, soft_wrap=True)
    if not passed:
        raise typer.Exit(1)


@app.command()
def train(
    config: ConfigPath,
    overrides: Overrides = None,
    row: Row = MAIN_ROW,
    live: Annotated[
        bool, typer.Option("--live", help="Encode each shard when it comes up; for comparison.")
    ] = False,
) -> None:
    """Train the student from the cache; goes on from its last checkpoint. Loads no teacher.

    With `--live` the teacher works beside the student instead: no cache is read or filled, and each
    shard is encoded again whenever it comes round.
    """
    _run_stage("train_live" if live else "train", config, overrides, row)


@app.command()
def evaluate(config: ConfigPath, overrides: Overrides = None, row: Row = MAIN_ROW) -> None:
    """Score every non-empty subset of the modalities, per condition and corner case; print the tables.

    With `--set evaluate.robustness=true` also with damaged readings (docs/evaluation.md).
    """
    _run_stage("evaluate", config, overrides, row)
    print_scores(_load(config, overrides, row))


@app.command()
def report(config: ConfigPath, overrides: Overrides = None) -> None:
    """Write the HTML report of a finished run."""
    _run_stage("report", config, overrides, MAIN_ROW)


app.command()(status)


@app.command()
def init(
    tree: Tree,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="The file; default: the tree's name.")
    ] = None,
    dataset: Dataset = "",
    force: Annotated[bool, typer.Option("--force", help="Overwrite what is there.")] = False,
) -> None:
    """Look at a tree of pictures and write a commented config for it, which runs as it is."""
    from pipeline.onboarding.propose import propose, write_proposal

    path = output or Path(f"{tree.resolve().name}.toml")
    for file in write_proposal(propose(tree, dataset), path, force=force):
        out.print(f"Wrote {file}", markup=False, highlight=False, soft_wrap=True)
    check = f"any2seg doctor {shlex.quote(str(tree))} --config {shlex.quote(str(path))}"
    for step in (f"Check: {check}", f"Run:   any2seg run {shlex.quote(str(path))}"):
        out.print(step, markup=False, highlight=False, soft_wrap=True)


@app.command()
def doctor(
    tree: Tree,
    dataset: Dataset = "",
    config: Annotated[
        Path | None,
        typer.Option("--config", help="Check against this config; default: what `init` proposes."),
    ] = None,
    overrides: Overrides = None,
    limit: Annotated[int, typer.Option("--samples", min=1, help="Samples that are read.")] = 200,
    everything: Annotated[bool, typer.Option("--all", help="Read all samples.")] = False,
    sheet: Annotated[
        Path, typer.Option(help="Where the contact sheet of random samples goes.")
    ] = Path("doctor.png"),
    seed: Annotated[int, typer.Option(min=0, help="Picks the samples.")] = 0,
) -> None:
    """Examine a tree before anything is made of it: is it whole, does it mean what it should?

    Ends with `ready`, or with the first three things to mend and exit code 1.
    """
    from pipeline.onboarding.contact_sheet import write_contact_sheet
    from pipeline.onboarding.doctor import examine
    from pipeline.onboarding.doctor_rules import problems
    from pipeline.onboarding.doctor_text import lines

    loaded = _config_of_tree(tree, dataset, config, overrides)
    diagnosis = examine(loaded, limit=None if everything else limit, seed=seed)
    samples = [decoded.sample for decoded in diagnosis.decoded]
    num_drawn = write_contact_sheet(sheet, loaded, samples, seed)
    for line in lines(diagnosis, sheet=str(sheet) if num_drawn else ""):
        out.print(line, markup=False, highlight=False, soft_wrap=True)
    if problems(diagnosis):
        raise typer.Exit(1)


def _config_of_tree(
    tree: Path, dataset: str, config: Path | None, overrides: list[str] | None
) -> Config:
    """The given config with `tree` as its root, or the one that `init` would propose."""
    if config is not None:
        root = json.dumps(str(tree.absolute()))
        return load_config(config, [*(overrides or ()), f"dataset.root={root}"])
    if overrides:
        raise ConfigError("--set: expected --config with it. Write one with `any2seg init`.")
    from pipeline.onboarding.propose import config_for

    return config_for(tree, dataset)


@app.command()
def kinds() -> None:
    """List the kinds of modality that a config can name."""
    table = Table("kind", "stored as", "unit", "seen as 1.0", "teacher tower")
    for name, kind in KINDS.items():
        stored = f"{kind.dtype} x {kind.channels}"
        table.add_row(name, stored, kind.unit, f"{kind.max_value:g}", kind.tower)
    out.print(table)


app.command()(server)
app.command(context_settings=EXTRA)(predict)
app.command()(export)
app.command()(serve)
app.command()(plan)
app.command()(verify)
app.command()(repair)
app.command()(gc)
app.command()(audit)


def _version(wanted: bool) -> None:
    if wanted:
        out.print(VERSION)
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    del version


def _guarded(command: Callable[[], None]) -> int:
    try:
        command()
    except (Any2SegError, OSError) as error:
        passes = worth_retrying(error)
        if not (passes or isinstance(error, Any2SegError)):
            raise
        text = f"error: {redacted(str(error))}"
        Console(stderr=True).print(text, markup=False, highlight=False, soft_wrap=True)
        return TRY_AGAIN if passes else 1
    except KeyboardInterrupt:
        print("interrupted; call the same command again to go on", file=sys.stderr)
        return 130
    return 0


def main() -> None:
    """Entry point of the console script: our own errors become one line and exit code 1."""
    sys.exit(_guarded(app))


if __name__ == "__main__":
    main()
