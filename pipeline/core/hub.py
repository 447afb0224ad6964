"""Files from the Hugging Face hub, into its own cache; `HF_HUB_OFFLINE` is honoured.

Every failure (no network, no such repository, no such file) is a `CheckpointError` of one form that
ends with the config field to change. `huggingface_hub` is imported on first use.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pipeline.errors import CheckpointError


def fetch_first(
    repository: str,
    files: Sequence[str],
    setting: str,
    *,
    revision: str | None = None,
    local_only: bool = False,
) -> Path:
    """The first of `files` that the repository has. Raises `CheckpointError` if it has none.

    `setting` is the config field that names the repository, for the error. `local_only`: no request,
    only the cache.
    """
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError, HfHubHTTPError, LocalEntryNotFoundError

    reasons = []
    for file in files:
        try:
            return Path(
                hf_hub_download(repository, file, revision=revision, local_files_only=local_only)
            )
        except LocalEntryNotFoundError as error:  # not cached, and no network
            reasons.append(f"{file}: {_first_line(error)}")
        except EntryNotFoundError:
            reasons.append(f"{file}: not there")
        except (HfHubHTTPError, OSError, ValueError) as error:
            reasons.append(f"{file}: {_first_line(error)}")
    raise _not_fetched(repository, revision, " or ".join(files), reasons, setting)


def fetch_optional(
    repository: str, file: str, *, revision: str | None = None, local_only: bool = False
) -> Path | None:
    """A file that a repository may lack; also None if the hub is unreachable and it is not cached."""
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError

    try:
        return Path(
            hf_hub_download(repository, file, revision=revision, local_files_only=local_only)
        )
    except EntryNotFoundError:
        return None


def fetch_snapshot(
    repository: str,
    patterns: Sequence[str],
    setting: str,
    *,
    revision: str | None = None,
    **options: Any,
) -> Path:
    """A folder with the repository's files that match `patterns`. Raises `CheckpointError`.

    `options` (token, cache folder, ...) are `huggingface_hub.snapshot_download`'s.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError

    try:
        return Path(
            snapshot_download(
                repository, revision=revision, allow_patterns=list(patterns), **options
            )
        )
    except (HfHubHTTPError, OSError, ValueError) as error:
        expected = f"files like {', '.join(patterns)}"
        raise _not_fetched(repository, revision, expected, [_first_line(error)], setting) from error


def _not_fetched(
    repository: str, revision: str | None, expected: str, reasons: Sequence[str], setting: str
) -> CheckpointError:
    return CheckpointError(
        f"hub repository {repository} (revision {revision or 'main'}): expected {expected}; "
        f"found: {'; '.join(reasons)}. Check the name and the network, or download it once and set "
        f"{setting} to its local path."
    )


def _first_line(error: Exception) -> str:
    """Without its full stop: a sentence follows."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0].removesuffix(".")
