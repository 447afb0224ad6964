"""The automation for silent runs: created once, updated, and what it contains."""

import pytest
from prefect.blocks.notifications import CustomWebhookNotificationBlock
from prefect.client.orchestration import get_client

from flows.crash_automation import NAME, SILENCE_S, ensure_crash_automation
from flows.parameters import COMMANDS

pytestmark = [pytest.mark.server, pytest.mark.slow]


@pytest.mark.proof
@pytest.mark.usefixtures("prefect")
def test_creating_the_automation_again_updates_the_existing_one() -> None:
    CustomWebhookNotificationBlock(
        name="night", url="http://127.0.0.1:9/", json_data={"body": "{{body}}"}
    ).save("night", overwrite=True)
    with get_client(sync_client=True) as client:
        first = ensure_crash_automation(client)
        second = ensure_crash_automation(client, "custom-webhook/night")
        found = client.read_automations_by_name(NAME)
    assert first == second
    assert [automation.id for automation in found] == [first]
    assert found[0].enabled
    kinds = [action.type for action in found[0].actions]
    assert kinds == ["change-flow-run-state", "send-notification"]
    trigger = found[0].trigger.model_dump(mode="json")
    assert trigger["within"] == SILENCE_S
    assert trigger["match_related"]["prefect.resource.name"] == list(COMMANDS)
