"""What all flows have in common in Prefect's eyes."""

from __future__ import annotations

from typing import Any

from prefect.task_runners import ThreadPoolTaskRunner

from flows.notify import notify
from flows.tasks import SIDE_BY_SIDE

FLOW: dict[str, Any] = {
    "task_runner": ThreadPoolTaskRunner(max_workers=SIDE_BY_SIDE),
    "persist_result": False,
    "on_failure": [notify],
    "on_crashed": [notify],
}
"""Options of `@flow`."""
