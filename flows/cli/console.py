"""What most commands take: a config and overrides of it, and where they print."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

ConfigPath = Annotated[Path, typer.Argument(metavar="CONFIG", help="The TOML file.")]
Overrides = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="FIELD=VALUE", help="Override, e.g. `--set train.steps=100`."),
]
# Of several training processes, the first one speaks.
out = Console(quiet=os.environ.get("RANK", "0") != "0")
