"""What a stage returns: units done, skipped and failed, and why.

A stage is a plain function `stage(config, workspace) -> StageReport` that can be killed at any
instruction and called again: it reads what is committed, does what is missing, commits unit by unit.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Failure:
    """One unit or sample that could not be made."""

    unit: str
    reason: str


@dataclass(frozen=True, slots=True)
class StageReport:
    """Counts of units; `details` holds small JSON values (paths, rates), never arrays."""

    stage: str
    done: int = 0
    skipped: int = 0
    failed: tuple[Failure, ...] = ()
    seconds: float = 0.0
    details: dict[str, Any] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        """A JSON-ready dict."""
        return asdict(self)

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> StageReport:
        """The inverse of `as_json`; reports cross processes as JSON."""
        return cls(**{**value, "failed": tuple(Failure(**failure) for failure in value["failed"])})

    def __str__(self) -> str:
        text = f"{self.stage}: {self.done} done, {self.skipped} already there"
        if self.failed:
            text += f", {len(self.failed)} refused"
        return f"{text} ({self.seconds:.1f} s)"
