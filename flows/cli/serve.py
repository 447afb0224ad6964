"""`any2seg server` and `any2seg serve`: the commands behind schedules."""

from __future__ import annotations

from typing import Annotated

import typer

from flows.cli.console import ConfigPath, Overrides
from flows.persistent_server import PORT, api_url, run_server


def server(
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port on 127.0.0.1.")] = PORT,
) -> None:
    """Run a Prefect server with its UI on this machine, in the foreground; Ctrl-C stops it.

    Nothing leaves the machine. Its database may be wiped at any time: nothing is recomputed.
    """
    print(f"UI:  {api_url(port).removesuffix('/api')}")
    print(f"Use: prefect config set PREFECT_API_URL={api_url(port)}", flush=True)
    run_server(port)


def serve(
    config: ConfigPath,
    cron: Annotated[str, typer.Option(help='Five fields, e.g. `--cron "0 2 * * *"`.')] = "",
    interval: Annotated[int, typer.Option(min=0, help="Seconds between runs.")] = 0,
    timezone: Annotated[str, typer.Option(help="IANA time zone of `--cron`.")] = "UTC",
    flow: Annotated[
        str, typer.Option(help="`any2seg`, `refresh-teacher`, `retrain`, `evaluate` or `audit`.")
    ] = "any2seg",
    name: Annotated[str, typer.Option(help="Name of the deployment; default: the config's.")] = "",
    overrides: Overrides = None,
) -> None:
    """Run a flow on a schedule from this machine, until stopped. Needs a server (`any2seg server`).

    With neither `--cron` nor `--interval` it runs when asked to: in the UI, or by
    `prefect deployment run FLOW/NAME`. A run that is due while one is going is cancelled. On a schedule
    `any2seg` trains only when the config's `[schedule]` says that it is worth it.
    """
    from flows.serve import When, serve_flow

    serve_flow(flow, config, list(overrides or ()), When(cron, interval, timezone), name)
