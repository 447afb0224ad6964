"""The `any2seg` command. Answers `--help` and `status` without importing torch or Prefect."""

from __future__ import annotations

import json
import os
import shlex
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Column, Table

from flows.cli.console import ConfigArgument, SetOption, out, print_line
from flows.cli.export import export
from flows.cli.integrity import audit, gc, repair, verify
from flows.cli.plan import plan
from flows.cli.predict import EXTRA, predict
from flows.cli.run import demo, refresh_teacher, retrain, run
from flows.cli.scores import print_scores
from flows.cli.serve import serve, server
from flows.cli.status import status
from flows.cli.teacher import teacher
from flows.redact import redacted
from flows.stages import load_stage
from pipeline import VERSION
from pipeline.config.config import Config
from pipeline.config.load import MAIN_ROW, load_config, rows
from pipeline.core.retryable import TRY_AGAIN, worth_retrying
from pipeline.errors import Any2SegError, CheckpointError, ConfigError, MissingTarget
from pipeline.modalities import KINDS, RENDERINGS
from pipeline.workspace import Workspace

app = typer.Typer(
    name="any2seg",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    help="""Segmentation from any combination of sensors, distilled from a frozen teacher.

    The teacher runs once (`precompute`); students train on its cached embeddings (`train`). Every command
    can be killed and called again: it resumes at the first unit that is missing.

    Start with `any2seg demo`; then copy a file from `configs/` and `any2seg run MY.toml`.""",
)
USAGE = 2
"""Exit code for weights or a teacher that cannot be used, as for a command line that cannot be."""
Row = Annotated[
    str, typer.Option(help="Experiment to run: `main`, or the name of a row in `[compare]`.")
]
DatasetFolder = Annotated[
    Path, typer.Argument(metavar="PATH", help="The folder that holds the data set.")
]
Dataset = Annotated[
    str,
    typer.Option(
        help="`deliver`, `mcubes`, `muses` or `folder`; default: guessed from folder names."
    ),
]


TEACHER_STAGES = {"prepare", "precompute", "describe"}
"""Stages before which it is checked what the teacher can do."""


def _run_stage(name: str, path: Path, overrides: list[str] | None, row: str = MAIN_ROW) -> Config:
    """Run a stage and print its report; returns the row's config."""
    loaded = load_config(path, overrides or ())
    if name in TEACHER_STAGES:
        _require_capable(loaded)
    configs = rows(loaded)
    if row not in configs:
        raise ConfigError(f"--row {row}: expected one of {', '.join(configs)}")
    config = configs[row]
    try:
        report = load_stage(name)(config, Workspace.of(config))
    except MissingTarget:
        # Perhaps no `precompute` can make it: then say so at once.
        with suppress(ImportError):
            _require_capable(loaded)
        raise
    print_line(str(report))
    for failure in report.failed:
        print_line(f"  refused {failure.unit}: {failure.reason}")
    return config


def _require_capable(config: Config) -> None:
    """Raise `ConfigError` naming what the teacher cannot do."""
    # Imported here: a student is trained and scored where no teacher's code is installed.
    from teacher.requirements import require_capable

    require_capable(config)


app.command()(demo)
app.command()(run)
app.command()(refresh_teacher)
app.command()(retrain)


@app.command()
def prepare(config: ConfigArgument, overrides: SetOption = None) -> None:
    """Write shards and manifest from the source data. Adds new samples only."""
    _run_stage("prepare", config, overrides)


@app.command()
def precompute(
    config: ConfigArgument,
    overrides: SetOption = None,
    workers: Annotated[
        int, typer.Option(min=0, help="Worker processes; default: `scale.workers`.")
    ] = 0,
    dask: Annotated[
        str, typer.Option(help="Address of a Dask scheduler; default: `scale.dask`.")
    ] = "",
) -> None:
    """Embed every shard and class prompt that has no embeddings yet, with the teacher."""
    spread = [f"scale.workers={workers}"] if workers else []
    spread += [f"scale.dask={dask}"] if dask else []
    _run_stage("precompute", config, [*(overrides or ()), *spread])


@app.command()
def describe(config: ConfigArgument, overrides: SetOption = None) -> None:
    """Write scene descriptions (from labels or by a captioning model) and embed them."""
    _run_stage("describe", config, overrides)


app.command()(teacher)


@app.command()
def train(
    config: ConfigArgument,
    overrides: SetOption = None,
    row: Row = MAIN_ROW,
    live: Annotated[
        bool, typer.Option("--live", help="Encode with the teacher while training; no cache.")
    ] = False,
) -> None:
    """Train the student from cached targets, resuming from its last checkpoint. Loads no teacher.

    With `--live` the teacher runs beside the student instead, for comparison: the cache is neither read
    nor filled, and a shard is encoded again each time it comes up.
    """
    _run_stage("train_live" if live else "train", config, overrides, row)


@app.command()
def evaluate(config: ConfigArgument, overrides: SetOption = None, row: Row = MAIN_ROW) -> None:
    """Score every non-empty subset of the modalities, per condition and corner case; print the tables.

    With `--set evaluate.robustness=true` also on corrupted inputs (docs/evaluation.md).
    """
    print_scores(_run_stage("evaluate", config, overrides, row))


@app.command()
def report(config: ConfigArgument, overrides: SetOption = None) -> None:
    """Write the HTML report of a finished run."""
    _run_stage("report", config, overrides)


app.command()(status)


@app.command()
def init(
    folder: DatasetFolder,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="Config to write; default: PATH's name.")
    ] = None,
    dataset: Dataset = "",
    force: Annotated[bool, typer.Option("--force", help="Overwrite an existing file.")] = False,
) -> None:
    """Inspect a dataset folder and write a commented config for it that runs as it is."""
    from pipeline.onboarding.propose import propose, write_proposal

    path = output or Path(f"{folder.resolve().name}.toml")
    for file in write_proposal(propose(folder, dataset), path, force=force):
        print_line(f"Wrote {file}")
    check = f"any2seg doctor {shlex.quote(str(folder))} --config {shlex.quote(str(path))}"
    print_line(f"Check: {check}")
    print_line(f"Run:   any2seg run {shlex.quote(str(path))}")


@app.command()
def doctor(
    folder: DatasetFolder,
    dataset: Dataset = "",
    config: Annotated[
        Path | None,
        typer.Option(
            "--config", help="Check with this config; default: the one that `init` writes."
        ),
    ] = None,
    overrides: SetOption = None,
    limit: Annotated[
        int, typer.Option("--samples", min=1, help="Number of samples to read.")
    ] = 200,
    everything: Annotated[bool, typer.Option("--all", help="Read all samples.")] = False,
    sheet: Annotated[
        Path, typer.Option(help="File for the contact sheet of random samples.")
    ] = Path("doctor.png"),
    seed: Annotated[int, typer.Option(min=0, help="Seed of the random samples.")] = 0,
) -> None:
    """Check a dataset folder before it is prepared: is it complete, do values and labels make sense?

    Ends with `ready`, or with the first three problems to fix and exit code 1.
    """
    from pipeline.onboarding.contact_sheet import write_contact_sheet
    from pipeline.onboarding.doctor import examine
    from pipeline.onboarding.doctor_rules import problems
    from pipeline.onboarding.doctor_text import lines
    from teacher.encoding.tower_inputs import stated
    from teacher.requirements import known_inputs, require_capable

    loaded = _config_of_folder(folder, dataset, config, overrides)
    require_capable(loaded)
    diagnosis = examine(loaded, limit=None if everything else limit, seed=seed)
    samples = [decoded.sample for decoded in diagnosis.decoded]
    num_drawn = write_contact_sheet(sheet, loaded, samples, seed)
    drawn = str(sheet) if num_drawn else ""
    seen = [
        line
        for name, inputs in known_inputs(loaded).items()
        for line in stated(name, inputs.values())
    ]
    for line in lines(diagnosis, sheet=drawn, teacher=seen):
        print_line(line)
    if problems(diagnosis):
        raise typer.Exit(1)


def _config_of_folder(
    folder: Path, dataset: str, config: Path | None, overrides: list[str] | None
) -> Config:
    """The given config with `folder` as its root, or the one that `init` would write."""
    if config is not None:
        root = json.dumps(str(folder.absolute()))
        return load_config(config, [*(overrides or ()), f"dataset.root={root}"])
    if overrides:
        raise ConfigError("--set: needs --config. `any2seg init` writes a config.")
    from pipeline.onboarding.propose import config_for

    return config_for(folder, dataset)


@app.command()
def kinds() -> None:
    """List the kinds of modality that a config can use."""
    kind, stored, unit, rendering = (
        Column(head, no_wrap=True) for head in ("kind", "stored as", "unit", "rendering")
    )
    table = Table(kind, stored, unit, "scaled to 1.0", "teacher tower", rendering)
    for name, spec in KINDS.items():
        form = f"{spec.dtype} x {spec.channels}"
        row = (name, form, spec.unit, f"{spec.max_value:g}", spec.tower, RENDERINGS[name])
        table.add_row(*row)
    out.print(table)
    print_line(
        "rendering: what an image tower sees, also of a kind whose own tower the teacher lacks"
    )


app.command()(server)
app.command(context_settings=EXTRA)(predict)
app.command()(export)
app.command()(serve)
app.command()(plan)
app.command()(verify)
app.command()(repair)
app.command()(gc)
app.command()(audit)


def _version(show: bool) -> None:
    if show:
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
        print_line(text, Console(stderr=True))
        if passes:
            return TRY_AGAIN
        return USAGE if isinstance(error, CheckpointError) else 1
    except KeyboardInterrupt:
        print("interrupted; run the same command again to resume", file=sys.stderr)
        return 130
    return 0


def main() -> None:
    """Entry point of the console script: an `Any2SegError` becomes one line and exit code 1 or 2."""
    _require_utf8()
    # A copy: processes that this one starts find the arguments as they were given.
    arguments = [_with_home(argument) for argument in sys.argv[1:]]
    sys.exit(_guarded(lambda: app(args=arguments)))


def _require_utf8() -> None:
    """Start over in Python's UTF-8 mode where the locale would read names and print in something else.

    Names of files become keys and messages name them: both must not depend on the terminal.
    """
    if sys.getfilesystemencoding() != "utf-8":
        os.environ["PYTHONUTF8"] = "1"
        os.execv(sys.executable, [sys.executable, "-m", "flows.cli", *sys.argv[1:]])


def _with_home(argument: str) -> str:
    """`~/x` and `--option=~/x` with the home folder, which a shell expands in the former alone."""
    option, equals, value = argument.partition("=")
    if equals and option.startswith("-") and value.startswith("~"):
        return f"{option}={os.path.expanduser(value)}"
    return os.path.expanduser(argument) if argument.startswith("~/") else argument
