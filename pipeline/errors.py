"""The error tree: every error that this package raises on purpose.

A message names the place, what was expected, what was found, and the next command to run.
"""

from __future__ import annotations


class Any2SegError(Exception):
    """Base of all errors that this package raises on purpose."""


class ConfigError(Any2SegError):
    """The configuration is wrong; nothing was run."""


class DatasetError(Any2SegError):
    """The source data set cannot be used (no such folder, empty split, ...)."""


class SampleRefused(DatasetError):
    """One source sample is bad; it is quarantined by name and the pass continues.

    `reason` names the file, what was expected and what was found.
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
    """A requested target is not in the store."""


class FingerprintMismatch(Any2SegError):
    """Two artefacts were made with different configs and must not be mixed."""


class CheckpointError(Any2SegError):
    """A teacher or student checkpoint cannot be loaded exactly."""


class WorkspaceBusy(Any2SegError):
    """Another process is writing the same unit of this workspace."""


class WorkerLost(Any2SegError):
    """A worker process of a stage was killed, most likely out of memory. Calling again may help."""


class StorageUnavailable(Any2SegError, OSError):
    """An object store did not answer within the time for retries. Trying again later may help."""


class NotEnoughSpace(Any2SegError):
    """A stage's output does not fit on the workspace's disk; raised before it writes anything."""


class OutOfMemory(Any2SegError):
    """Not even a batch of one image fits in the device's memory."""


class DigestMismatch(Any2SegError):
    """A file's bytes do not match its digest. Callers that know what it is name the next command."""

    def __init__(self, path: str, expected: str, actual: str) -> None:
        super().__init__(path, expected, actual)
        self.path, self.expected, self.actual = path, expected, actual

    def __str__(self) -> str:
        return f"{self.path}: expected sha256 {self.expected[:12]}, found {self.actual[:12]}"


class LeaseLost(Any2SegError):
    """This process could not renew its lease in an object store and must not write any more."""
