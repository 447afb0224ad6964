"""Serving a flow from this machine: a deployment, its schedule, and the process that runs it.

`serve_flow` registers the deployment with the Prefect server, then polls for its runs until it is
stopped; every run is a process of its own. Config, overrides and schedule are checked before anything
is registered. Runs of one deployment never overlap: a run that is due while another one is active is
cancelled (`CANCEL_NEW`) and not queued, since queued runs would find nothing left to do.

Fails with `ConfigError`, or with `NoServer` when there is no Prefect server to register with.
"""

from __future__ import annotations

import os
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flows.crash_automation import HEARTBEAT_S, ensure_crash_automation
from flows.parameters import COMMANDS, checked
from flows.temporary_server import QUIET
from pipeline.config.load import load_config
from pipeline.errors import Any2SegError, ConfigError

if TYPE_CHECKING:
    from prefect import Flow
    from prefect.schedules import Schedule


class NoServer(Any2SegError):
    """No Prefect server responds, and a deployment needs one."""


@dataclass(frozen=True, slots=True)
class When:
    """When a deployment runs: by cron, every `interval_s` seconds, or on demand only."""

    cron: str = ""
    interval_s: int = 0
    timezone: str = "UTC"

    def schedule(self) -> Schedule | None:
        """Prefect's schedule, or None. Raises `ConfigError`."""
        from prefect.schedules import Cron, Interval
        from prefect.server.schemas.schedules import CronSchedule

        if self.cron and self.interval_s:
            raise ConfigError("--cron and --interval: expected one of them, found both")
        if self.interval_s:
            return Interval(self.interval_s)
        if not self.cron:
            return None
        try:
            CronSchedule(cron=self.cron, timezone=self.timezone)
        except ValueError as error:
            cause = str(error).splitlines()[-1].strip() if str(error) else "not valid"
            raise ConfigError(
                f'--cron "{self.cron}" --timezone {self.timezone}: {cause}. Expected five fields '
                'and an IANA zone, e.g. --cron "0 2 * * *" --timezone Europe/Paris.'
            ) from None
        return Cron(self.cron, timezone=self.timezone)


def require_server() -> str:
    """The URL of the configured Prefect API. Raises `NoServer` if it does not respond."""
    for name, value in QUIET.items():
        os.environ.setdefault(name, value)
    from prefect.settings import PREFECT_API_URL

    url = PREFECT_API_URL.value()
    if not url:
        raise NoServer(
            "PREFECT_API_URL: not set, and a schedule needs a Prefect server that outlives a run. "
            "Run `any2seg server` (or `make server`) in another terminal; it prints the line that "
            "sets it."
        )
    try:
        with urllib.request.urlopen(f"{url}/health", timeout=10) as response:
            response.read()
    except OSError as error:
        raise NoServer(
            f"{url}: expected a Prefect server, found: {error}. Run `any2seg server` (or "
            "`make server`) in another terminal, or correct PREFECT_API_URL."
        ) from None
    return str(url)


def load_flow(name: str) -> Flow[..., Any]:
    """The flow of that name. `ConfigError` lists the names."""
    from prefect.flows import load_flow_from_entrypoint

    if name not in COMMANDS:
        raise ConfigError(f"--flow {name}: expected one of {', '.join(COMMANDS)}")
    return load_flow_from_entrypoint(f"flows.flows.{name.replace('-', '_')}")


def create_automation(block: str = "") -> None:
    """Create or update the automation for silent runs on the configured server. Raises `NoServer`.

    `block`: notification block (`type/name`) that is notified of every such run; empty: none.
    """
    require_server()
    from prefect.client.orchestration import get_client

    with get_client(sync_client=True) as client:
        ensure_crash_automation(client, block)


def serve_flow(
    flow_name: str, config_path: Path, overrides: list[str], when: When, name: str = ""
) -> None:
    """Register `<flow>/<name>` and run what is due until stopped; see the module's text.

    `name` defaults to the config's. Also creates the automation that marks silent runs as crashed.
    """
    config = load_config(config_path, checked(overrides))
    parameters: dict[str, Any] = {"config_path": str(config_path.resolve()), "overrides": overrides}
    os.environ.setdefault("PREFECT_FLOWS_HEARTBEAT_FREQUENCY", str(HEARTBEAT_S))
    require_server()
    from prefect import serve
    from prefect.client.schemas.objects import ConcurrencyLimitConfig, ConcurrencyLimitStrategy
    from prefect.types.entrypoint import EntrypointType

    flow, schedule = load_flow(flow_name), when.schedule()
    if flow_name == "any2seg" and schedule is not None:
        parameters["when_due"] = True
    create_automation(config.notify.block)
    deployment: Any = flow.to_deployment(
        name=name or config.name,
        schedule=schedule,
        parameters=parameters,
        tags=["any2seg", config.name],
        concurrency_limit=ConcurrencyLimitConfig(
            limit=1, collision_strategy=ConcurrencyLimitStrategy.CANCEL_NEW
        ),
        entrypoint_type=EntrypointType.MODULE_PATH,
    )
    # Not `flow.serve`: that pickles the flow for its runs. By module path they import it, as workers do.
    serve(deployment)
