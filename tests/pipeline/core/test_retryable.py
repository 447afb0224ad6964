"""Which faults are tried again, and what a failure says."""

import errno

import pytest

from pipeline.core.retryable import StageFailed, TryAgain, worth_retrying
from pipeline.errors import (
    ConfigError,
    CorruptShard,
    FingerprintMismatch,
    MissingTarget,
    StorageUnavailable,
    WorkspaceBusy,
)


@pytest.mark.parametrize(
    "error",
    [
        StorageUnavailable("no answer"),
        TryAgain("killed"),
        OSError(errno.EIO, "I/O error"),
        ConnectionResetError(errno.ECONNRESET, "reset"),
        TimeoutError("slow"),
    ],
)
def test_transient_errors_are_worth_retrying(error: Exception) -> None:
    assert worth_retrying(error)


@pytest.mark.parametrize(
    "error",
    [
        ConfigError("x"),
        FingerprintMismatch("x"),
        CorruptShard("x"),
        MissingTarget("x"),
        WorkspaceBusy("x"),
        OSError(errno.ENOSPC, "full"),
        FileNotFoundError(errno.ENOENT, "gone"),
        PermissionError(errno.EACCES, "no"),
        ValueError("x"),
        None,
    ],
)
def test_permanent_errors_are_not_worth_retrying(error: object) -> None:
    assert not worth_retrying(error)


def test_stage_failed_names_stage_unit_cause_and_command() -> None:
    error = StageFailed("precompute", "train-000003", "disk on fire", "any2seg run a.toml")
    for word in ("precompute", "train-000003", "disk on fire", "`any2seg run a.toml`"):
        assert word in str(error)
