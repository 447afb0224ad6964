"""`any2seg serve`: what it asks for, and the automation that it creates for deployments of a team."""

from __future__ import annotations

from pathlib import Path

import pytest
from prefect.blocks.notifications import CustomWebhookNotificationBlock
from prefect.client.orchestration import get_client
from prefect.settings import PREFECT_API_URL, temporary_settings
from typer.testing import CliRunner

from flows.cli.main import app
from flows.crash_automation import NAME
from flows.serve import NoServer
from pipeline.errors import ConfigError


def serve(*words: str) -> str:
    result = CliRunner().invoke(app, ["serve", *words])
    if isinstance(result.exception, Exception):
        raise result.exception
    return result.output


def test_serve_without_a_config_is_an_error() -> None:
    with pytest.raises(ConfigError, match="CONFIG: missing"):
        serve("--interval", "60")


def test_an_automation_needs_a_server() -> None:
    with (
        temporary_settings({PREFECT_API_URL: "http://127.0.0.1:1/api"}),
        pytest.raises(NoServer, match="any2seg server"),
    ):
        serve("--create-automation")


@pytest.mark.server
@pytest.mark.slow
@pytest.mark.usefixtures("prefect")
def test_the_automation_is_created_alone_and_notifies_the_block_of_a_config(field: Path) -> None:
    CustomWebhookNotificationBlock(
        name="team", url="http://127.0.0.1:9/", json_data={"body": "{{body}}"}
    ).save("team", overwrite=True)
    assert "Created the automation" in serve("--create-automation")
    with get_client(sync_client=True) as client:
        (alone,) = client.read_automations_by_name(NAME)
        assert [action.type for action in alone.actions] == ["change-flow-run-state"]
        block = "notify.block=custom-webhook/team"
        serve(str(field), "--create-automation", "--set", block)
        (notifying,) = client.read_automations_by_name(NAME)
        assert notifying.id == alone.id
        assert [a.type for a in notifying.actions] == ["change-flow-run-state", "send-notification"]
        assert not client.request("POST", "/deployments/filter", json={}).json()
