"""`any2seg server` and `any2seg serve`: the commands behind schedules."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from flows.cli.console import SetOption, print_line
from flows.parameters import COMMANDS, checked
from flows.persistent_server import PORT, api_url, run_server
from pipeline.config.load import load_config
from pipeline.errors import ConfigError


def server(
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port on 127.0.0.1.")] = PORT,
) -> None:
    """Run a Prefect server with its UI on this machine, in the foreground; Ctrl-C stops it.

    It listens on loopback and sends no telemetry. Its database may be wiped at any time: nothing is
    recomputed.
    """
    print(f"UI:  {api_url(port).removesuffix('/api')}")
    print(f"Use: prefect config set PREFECT_API_URL={api_url(port)}", flush=True)
    run_server(port)


def serve(
    config: Annotated[
        Path | None,
        typer.Argument(
            metavar="CONFIG",
            help="The experiment's TOML file; optional with `--create-automation`.",
        ),
    ] = None,
    cron: Annotated[str, typer.Option(help='Five fields, e.g. `--cron "0 2 * * *"`.')] = "",
    interval: Annotated[int, typer.Option(min=0, help="Seconds between runs.")] = 0,
    timezone: Annotated[str, typer.Option(help="IANA time zone of `--cron`.")] = "UTC",
    flow: Annotated[
        str, typer.Option(help=f"One of {', '.join(f'`{name}`' for name in COMMANDS)}.")
    ] = "any2seg",
    name: Annotated[
        str, typer.Option(help="Name of the deployment; default: that of CONFIG.")
    ] = "",
    automation: Annotated[
        bool,
        typer.Option(
            "--create-automation",
            help="Only create the automation that marks killed runs as crashed, and exit.",
        ),
    ] = False,
    overrides: SetOption = None,
) -> None:
    """Run a flow on a schedule from this machine, until stopped. Needs a server (`any2seg server`).

    With neither `--cron` nor `--interval` it runs on demand: from the UI, or by
    `prefect deployment run FLOW/NAME`. A run that is due while another one is active is cancelled. On a
    schedule, `any2seg` trains only when the config's `[schedule]` calls for it.

    Every `serve` creates the automation that marks killed runs as crashed. For a team's deployments, which
    are not served from here, `any2seg serve --create-automation` creates it alone; with CONFIG it also
    notifies the config's `notify.block`.
    """
    from flows.serve import When, create_automation, serve_flow

    if automation:
        block = load_config(config, checked(overrides)).notify.block if config else ""
        create_automation(block)
        print_line("Created the automation that marks killed runs as crashed.")
        return
    if config is None:
        raise ConfigError("CONFIG: missing. Expected a TOML file, e.g. `any2seg serve field.toml`.")
    serve_flow(flow, config, list(overrides or ()), When(cron, interval, timezone), name)
