"""Every error that a user can meet, by name.

A message says where, what was expected, what was found, and the next command to type.
"""

from __future__ import annotations


class Any2SegError(Exception):
    """Base of all errors that this package raises on purpose."""


class ConfigError(Any2SegError):
    """The configuration is wrong; nothing was run."""


class DatasetError(Any2SegError):
    """The source data set as a whole cannot be used (no such root, empty split, ...)."""


class SampleRefused(DatasetError):
    """One source sample is bad; it is quarantined by name and the pass goes on.

    `reason` says which file, what was expected and what was found.
    """

    def __init__(self, key: str, reason: str) -> None:
        super().__init__(key, reason)
        self.key = key
        self.reason = reason

    def __str__(self) -> str:
        return f"sample {self.key}: {self.reason}"


class CorruptShard(Any2SegError):
    """A shard on disk is not the one that the manifest names."""


class CorruptTarget(Any2SegError):
    """A stored embedding chunk does not match its commit record or its checksum."""


class MissingTarget(Any2SegError):
    """Embeddings that were asked for are not in the store."""


class FingerprintMismatch(Any2SegError):
    """Two artefacts were made with different settings and must not be mixed."""


class CheckpointError(Any2SegError):
    """A teacher or student checkpoint cannot be loaded exactly."""


class WorkspaceBusy(Any2SegError):
    """Another process is writing the same unit of this workspace."""


class WorkerLost(Any2SegError):
    """A process that works for a stage was killed, most often for memory. Calling again may help."""


class StorageUnavailable(Any2SegError, OSError):
    """An object store did not answer within the time for retries. Trying again later may help."""


class NotEnoughSpace(Any2SegError):
    """What a stage would write does not fit on the workspace's disk; nothing was written."""


class OutOfMemory(Any2SegError):
    """Not even one picture at a time fits into the device's memory."""


class DigestMismatch(Any2SegError):
    """A file holds other bytes than its digest says; what it is decides the next command."""

    def __init__(self, place: str, wanted: str, found: str) -> None:
        super().__init__(place, wanted, found)
        self.place, self.wanted, self.found = place, wanted, found

    def __str__(self) -> str:
        return f"{self.place}: expected sha256 {self.wanted[:12]}, found {self.found[:12]}"


class LeaseLost(Any2SegError):
    """This process held a lease in an object store, could not renew it, and must not write."""
