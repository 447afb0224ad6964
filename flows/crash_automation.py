"""Runs that are gone but still called Running: an automation that marks them Crashed.

A flow that is killed with its runner cannot tell anybody. While it lives it sends a heartbeat every
`HEARTBEAT_S`; the automation marks a run of ours that sends nothing for `SILENCE_S` as Crashed. The
work needs none of this: the next run takes the workspace over and goes on at the first missing unit.
"""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING
from uuid import UUID

if TYPE_CHECKING:
    from prefect.client.orchestration import SyncPrefectClient
    from prefect.events.actions import SendNotification

FLOW_NAMES = ("any2seg", "refresh-teacher", "retrain", "evaluate", "audit")
HEARTBEAT_S = 30
"""Prefect's shortest beat."""
SILENCE_S = 75
"""Two beats and a half: one that is late or lost ends nothing."""
NAME = "any2seg: silent runs have crashed"


def ensure_zombie_automation(client: SyncPrefectClient, block: str = "") -> UUID:
    """Create the automation, or bring it up to date; returns its id. Other automations stay.

    `block`: notification block (`type/name`) that is told of every such run; empty: nobody.
    """
    from prefect.client.schemas.objects import StateType
    from prefect.events import AutomationCore, EventTrigger, Posture, ResourceSpecification
    from prefect.events.actions import ChangeFlowRunState

    silent = ChangeFlowRunState(
        name="Crashed",
        state=StateType.CRASHED,
        message=f"No heartbeat for {SILENCE_S} s.",
        force=False,
    )
    automation = AutomationCore(
        name=NAME,
        description="A run of Any2Seg that sends no heartbeat was killed; the next one goes on.",
        tags=["any2seg"],
        trigger=EventTrigger(
            posture=Posture.Proactive,
            match=ResourceSpecification({"prefect.resource.id": "prefect.flow-run.*"}),
            match_related=ResourceSpecification(
                {
                    "prefect.resource.role": "flow",
                    "prefect.resource.name": list(FLOW_NAMES),
                }
            ),
            for_each={"prefect.resource.id"},
            after={"prefect.flow-run.heartbeat"},
            # Any event of the run is a sign of life: its last state may have any name.
            expect={"prefect.flow-run.*"},
            threshold=1,
            within=timedelta(seconds=SILENCE_S),
        ),
        actions=[silent, *_notification(client, block)],
    )
    for found in client.read_automations_by_name(NAME):
        client.update_automation(found.id, automation)
        return found.id
    return client.create_automation(automation)


def _notification(client: SyncPrefectClient, block: str) -> list[SendNotification]:
    """The action that tells `block`, or none."""
    from prefect.events.actions import SendNotification

    if not block:
        return []
    kind, _, name = block.partition("/")
    document = client.read_block_document_by_name(name, kind, include_secrets=False)
    return [
        SendNotification(
            block_document_id=document.id,
            subject="Any2Seg: {{ flow.name }} crashed",
            body=(
                "Flow run {{ flow_run.name }} of {{ flow.name }} sent no sign of life any more and "
                "counts as crashed. What it finished stays.\n"
                "Resume: any2seg {{ 'run' if flow.name == 'any2seg' else flow.name }} "
                "{{ flow_run.parameters.config_path }}"
            ),
        )
    ]
