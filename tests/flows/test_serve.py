"""Schedules on a real server: what is served, what is refused, and a team's deployments with a worker."""

import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.objects import FlowRun
from prefect.flows import load_flow_from_entrypoint
from prefect.settings import PREFECT_API_URL, temporary_settings

from flows.crash_automation import NAME
from flows.parameters import COMMANDS
from flows.serve import NoServer, When, load_flow, require_server
from pipeline.errors import ConfigError

from .conftest import Server

ROOT = Path(__file__).parents[2]
pytestmark = [pytest.mark.slow, pytest.mark.server, pytest.mark.timeout(900)]


@contextmanager
def running(server: Server, folder: Path, *words: str) -> Iterator[subprocess.Popen[str]]:
    """`python -m WORDS` in `folder`, talking to the room's server; stopped at the end."""
    environment = {**server.environment, "PYTHONPATH": str(ROOT)}
    with (folder / "output.log").open("w") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", *words],
            cwd=folder,
            env=environment,
            stdout=log,
            stderr=subprocess.STDOUT,
            text=True,
        )
        try:
            yield process
        finally:
            process.terminate()
            try:
                process.wait(timeout=60)
            except subprocess.TimeoutExpired:  # how fast Prefect's worker ends is not ours to test
                process.kill()
                process.wait()


def runs_of(client: SyncPrefectClient, deployment: str) -> list[FlowRun]:
    answer = client.request(
        "POST", "/flow_runs/filter", json={"deployments": {"name": {"any_": [deployment]}}}
    )
    return [FlowRun.model_validate(run) for run in answer.json()]


def wait_for(find: Callable[[], Any], seconds: float = 600) -> Any:
    deadline = time.monotonic() + seconds
    while not (found := find()):
        assert time.monotonic() < deadline
        time.sleep(0.5)
    return found


def finished(client: SyncPrefectClient, deployment: str) -> list[FlowRun]:
    return [run for run in runs_of(client, deployment) if run.state and run.state.is_final()]


def worked(client: SyncPrefectClient, deployment: str) -> list[FlowRun]:
    """Those that were not cancelled because one was still going."""
    return [run for run in finished(client, deployment) if not run.state.is_cancelled()]


@pytest.fixture
def client(server: Server) -> Iterator[SyncPrefectClient]:
    with temporary_settings({PREFECT_API_URL: server.url}), get_client(sync_client=True) as found:
        yield found


@pytest.mark.proof
def test_an_interval_schedule_runs_the_flow(
    server: Server, client: SyncPrefectClient, field: Path
) -> None:
    """Scheduled runs are created (they are not with sqlalchemy 2.1), and the second has nothing to do."""
    words = ("flows.cli", "serve", str(field), "--interval", "20", "--name", "often")
    with running(server, field.parent, *words) as process:
        ended = wait_for(lambda: len(found := worked(client, "often")) >= 2 and found)
        assert process.poll() is None
        deployment = client.read_deployment_by_name("any2seg/often")
        assert deployment.parameters["when_due"] is True
        assert deployment.global_concurrency_limit is not None
        assert deployment.global_concurrency_limit.limit == 1
        assert client.read_automations_by_name(NAME)
    ended.sort(key=lambda run: run.expected_start_time)
    states = [run.state.name for run in ended]
    assert states[:2] == ["Completed", "Nothing to do"], (field.parent / "output.log").read_text()
    assert all(run.auto_scheduled for run in ended)
    paused = client.read_deployment_by_name("any2seg/often")
    assert paused.paused or not any(schedule.active for schedule in paused.schedules)


@pytest.mark.proof
def test_a_teams_deployments_are_run_by_a_worker(
    server: Server, client: SyncPrefectClient, field: Path
) -> None:
    shutil.copy(ROOT / "prefect.yaml", field.parent)
    environment = {
        **server.environment,
        "PYTHONPATH": str(ROOT),
        "ANY2SEG_HOME": str(field.parent),
        "ANY2SEG_CONFIG": field.name,
    }
    for words in (
        ["work-pool", "create", "any2seg", "--type", "process"],
        ["deploy", "--all", "--no-prompt"],
        ["deployment", "run", "refresh-teacher/hourly"],
    ):
        done = subprocess.run(
            [sys.executable, "-m", "prefect", *words],
            cwd=field.parent,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
    nightly = client.read_deployment_by_name("any2seg/nightly")
    assert nightly.parameters == {"config_path": field.name, "overrides": [], "when_due": True}
    assert [str(s.schedule.cron) for s in nightly.schedules] == ["0 2 * * *"]
    assert nightly.concurrency_options is not None
    assert nightly.concurrency_options.collision_strategy == "CANCEL_NEW"
    assert not client.read_deployment_by_name("refresh-teacher/hourly").schedules[0].active
    with running(server, field.parent, "prefect", "worker", "start", "--pool", "any2seg"):
        (run,) = wait_for(lambda: finished(client, "hourly"))
    assert run.state.is_completed(), (field.parent / "output.log").read_text()
    assert list((field.parent / "workspace/targets").rglob("ledger/*/*.json"))


def test_serving_without_a_server_names_the_command(field: Path) -> None:
    with (
        temporary_settings({PREFECT_API_URL: "http://127.0.0.1:1/api"}),
        pytest.raises(NoServer, match="any2seg server"),
    ):
        require_server()


@pytest.mark.parametrize(
    ("when", "words"),
    [
        (When(cron="0 2 * * *", interval_s=5), "both"),
        (When(cron="at two"), "five fields"),
        (When(cron="0 2 * * *", timezone="Mars/Olympus"), "IANA"),
    ],
)
def test_a_wrong_schedule_is_refused(when: When, words: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(words)):
        when.schedule()


def test_schedules_are_those_of_prefect() -> None:
    assert When().schedule() is None
    cron = When(cron="0 2 * * *", timezone="Europe/Paris").schedule()
    assert cron is not None
    assert (cron.cron, cron.timezone) == ("0 2 * * *", "Europe/Paris")


@pytest.mark.parametrize("name", COMMANDS)
def test_every_flow_loads_by_its_name(name: str) -> None:
    assert load_flow(name).name == name


def test_a_teams_deployments_name_flows_that_exist() -> None:
    deployments = yaml.safe_load((ROOT / "prefect.yaml").read_text())["deployments"]
    flows = {load_flow_from_entrypoint(d["entrypoint"]).name for d in deployments}
    assert flows == set(COMMANDS)


def test_an_unknown_flow_lists_the_known_ones() -> None:
    with pytest.raises(ConfigError, match="retrain"):
        load_flow("retrian")
