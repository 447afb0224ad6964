"""An automation that marks runs as Crashed whose process no longer exists.

A flow that is killed together with its runner stays `Running` in Prefect. While alive it sends a heartbeat
every `HEARTBEAT_S`; the automation marks a run of these flows that sent none for `SILENCE_S` as Crashed.
The work does not depend on it: the next run takes the workspace over and resumes at the first missing unit.
"""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING
from uuid import UUID

from flows.parameters import COMMANDS

if TYPE_CHECKING:
    from prefect.client.orchestration import SyncPrefectClient
    from prefect.events.actions import SendNotification

HEARTBEAT_S = 30
"""The shortest that Prefect allows."""
SILENCE_S = 75
"""Two and a half heartbeats, so that one that is late or lost has no effect."""
NAME = "any2seg: silent runs have crashed"


def ensure_crash_automation(client: SyncPrefectClient, block: str = "") -> UUID:
    """Create or update the automation; returns its id. Other automations are left alone.

    `block`: notification block (`type/name`) that is notified of every such run; empty: none.
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
        description="A run of Any2Seg that sends no heartbeat was killed; the next one resumes.",
        tags=["any2seg"],
        trigger=EventTrigger(
            posture=Posture.Proactive,
            match=ResourceSpecification({"prefect.resource.id": "prefect.flow-run.*"}),
            match_related=ResourceSpecification(
                {
                    "prefect.resource.role": "flow",
                    "prefect.resource.name": list(COMMANDS),
                }
            ),
            for_each={"prefect.resource.id"},
            after={"prefect.flow-run.heartbeat"},
            # Any event of the run counts: it shows that the run's process still exists.
            expect={"prefect.flow-run.*"},
            threshold=1,
            within=timedelta(seconds=SILENCE_S),
        ),
        actions=[silent, *_notification(client, block)],
    )
    for present in client.read_automations_by_name(NAME):
        client.update_automation(present.id, automation)
        return present.id
    return client.create_automation(automation)


def _notification(client: SyncPrefectClient, block: str) -> list[SendNotification]:
    """The action that notifies `block`, or none."""
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
                "Flow run {{ flow_run.name }} of {{ flow.name }} stopped sending heartbeats and was "
                "marked as crashed. What it finished stays.\n"
                "Resume: any2seg {{ 'run' if flow.name == 'any2seg' else flow.name }} "
                "{{ flow_run.parameters.config_path }}"
            ),
        )
    ]
