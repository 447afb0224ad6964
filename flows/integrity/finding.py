"""Findings of `any2seg verify`: what is wrong, where, and the command that fixes it.

`verify` prints them, `any2seg repair` acts on them.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from pipeline.storage.files import AnyPath

REPAIR = "any2seg repair CONFIG"
PREPARE = "any2seg prepare CONFIG"
PRECOMPUTE = "any2seg precompute CONFIG"
DESCRIBE = "any2seg describe CONFIG"


class Kind(StrEnum):
    """Kinds of findings; the value is what is printed, the lower-case name is the `kind` in JSON."""

    DESCRIPTION = "dataset description damaged"
    MANIFEST_UNREADABLE = "manifest unreadable"
    MANIFEST_DIFFERS = "manifest and record differ"
    QUARANTINE_DIFFERS = "quarantine and refusals differ"
    REFUSALS_UNREADABLE = "refusals unreadable"
    SHARD_RECORD_MISSING = "shard record missing"
    SHARD_RECORD_UNREADABLE = "shard record unreadable"
    SHARD_MISSING = "shard missing"
    SHARD_TRUNCATED = "shard truncated"
    SHARD_ALTERED = "shard altered"
    SHARD_MEMBERS = "shard members differ"
    SHARD_LEFTOVER = "shard without record"
    PROVENANCE = "provenance damaged"
    ARRAY = "array description damaged"
    HOLE = "not made yet"
    LEDGER_UNREADABLE = "record unreadable"
    LEDGER_STALE = "record of other shard bytes"
    LEDGER_FOREIGN = "record of another tower"
    LEDGER_WRONG = "record contradicts the manifest"
    LEDGER_MISSING = "numbers without record"
    LEDGER_ORPHAN = "record without shard"
    OBJECT_MISSING = "numbers missing"
    OBJECT_SIZE = "numbers truncated"
    OBJECT_ALTERED = "numbers altered"
    OBJECT_UNREADABLE = "numbers unreadable"
    OBJECT_ROWS = "numbers in the wrong rows"
    OBJECT_NORM = "numbers not of unit norm"
    TEXTS = "texts damaged"
    INDEX = "index entry leads nowhere"
    RUN = "run damaged"
    CHECKPOINT = "checkpoint damaged"
    CHECKPOINT_NEWER = "checkpoint newer than its state file"
    PARTIAL = "left by a killed writer"


@dataclass(frozen=True, slots=True)
class Finding:
    """One problem in the workspace."""

    kind: Kind
    location: str
    """Path of the file or folder."""
    problem: str
    """What was expected and what was found instead."""
    remedy: str = REPAIR
    """The command that fixes it; `CONFIG` stands for the configuration's path."""
    shard: str = ""
    """Name of the shard to rebuild; with `stage`."""
    modality: str = ""
    """The modality whose targets of that shard are wrong; empty: the shard itself."""
    stage: str = ""
    """What rebuilds it: `prepare`, `precompute` or `describe`; empty: deleting is enough."""
    drop: tuple[AnyPath, ...] = ()
    """Records of the corrupt data, or its files; deleted in this order before it is rebuilt."""

    @property
    def repairable(self) -> bool:
        """Whether `any2seg repair` can act on it."""
        return bool(self.stage or self.drop)

    def as_json(self) -> dict[str, Any]:
        """A JSON-ready dict."""
        return {
            "kind": self.kind.name.lower(),
            "name": self.kind.value,
            "place": self.location,
            "problem": self.problem,
            "remedy": self.remedy,
            "repairable": self.repairable,
            "shard": self.shard,
            "modality": self.modality,
            "stage": self.stage,
        }

    def __str__(self) -> str:
        return f"{self.location}: {self.kind.value}: {self.problem}"
