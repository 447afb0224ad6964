"""What most commands share: the config argument, the `--set` option, and printing."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from pipeline.config.config import Config
from pipeline.config.toy_teacher import toy_teacher_note

ConfigArgument = Annotated[
    Path, typer.Argument(metavar="CONFIG", help="The experiment's TOML file.")
]
SetOption = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="FIELD=VALUE",
        help="Override a field of CONFIG, e.g. `--set train.steps=100`; repeatable.",
    ),
]
# Under torchrun every rank runs the command; only rank 0 prints.
out = Console(quiet=os.environ.get("RANK", "0") != "0")


def print_line(text: str, console: Console = out) -> None:
    """Print text as it is: no markup, no colours, no wrapping, so that it can be piped and pasted."""
    console.print(text, markup=False, highlight=False, soft_wrap=True)


def print_teacher_note(config: Config) -> None:
    """Print the line about a teacher that is not meant for the config's data, if there is one."""
    note = toy_teacher_note(config)
    if note:
        print_line(f"note: {note}")
