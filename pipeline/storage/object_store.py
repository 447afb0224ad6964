"""Connections to object stores, configured by the environment: retries, and errors without secrets.

A failing request is retried with exponential backoff for at most `RETRY_S` seconds; then it is a
`StorageUnavailable`. What a retry cannot fix (no such bucket, wrong credentials, a bad request) is a
`ConfigError`. Neither repeats the server's answer, which may hold an access key. obstore (extra `s3`)
is imported on first use.
"""

from __future__ import annotations

import errno
import os
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from functools import cache
from typing import TYPE_CHECKING, Any, TypeVar

from pipeline.errors import Any2SegError, ConfigError, StorageUnavailable

if TYPE_CHECKING:
    from obstore.store import ClientConfig, ObjectStore, RetryConfig

Result = TypeVar("Result")

SCHEMES = ("s3", "gs", "az")
RETRY_S = 60.0
"""Seconds for which a failing request is retried."""
MAX_RETRIES = 12
REQUEST_TIMEOUT_S = 30.0
_WORTH_RETRYING = re.compile(r"(?!4)|408|429")
"""Start of a cause that may pass: anything but a client error, and of those timeout and rate limit."""
_owner: dict[str, int] = {}
"""The process that opened the connections: they do not survive a fork."""


def library(path: object) -> Any:
    """The module `obstore`. Raises `ConfigError` if the extra is not installed."""
    try:
        import obstore.exceptions
    except ImportError:
        raise ConfigError(
            f'{path}: object stores need the extra s3. Run `pip install "any2seg[s3]"`.'
        ) from None
    return obstore


def connect(root: str) -> ObjectStore:
    """This process's connections to a bucket, `s3://bucket`, configured by the environment."""
    # The threads of obstore's runtime do not exist in a forked child: its first request would hang.
    if _owner.setdefault("pid", os.getpid()) != os.getpid():
        raise RuntimeError(
            f"{root}: used in a forked process, where it would hang; start processes with spawn"
        )
    return _connect(root)


@cache
def _connect(root: str) -> ObjectStore:
    from obstore.store import from_url

    endpoint = os.environ.get("AWS_ENDPOINT_URL") or os.environ.get("AWS_ENDPOINT") or ""
    client: ClientConfig = {
        "allow_http": endpoint.startswith("http://"),
        "timeout": timedelta(seconds=REQUEST_TIMEOUT_S),
    }
    retry: RetryConfig = {
        "max_retries": MAX_RETRIES,
        "retry_timeout": timedelta(seconds=RETRY_S),
        "backoff": {
            "init_backoff": timedelta(milliseconds=50),
            "max_backoff": timedelta(seconds=10),
            "base": 2,
        },
    }
    return from_url(root, client_options=client, retry_config=retry)


def forget_connections() -> None:
    """Read the environment again at the next request (for tests)."""
    _connect.cache_clear()


def insist(path: object, doing: str, call: Callable[[], Result]) -> Result:
    """`call()`, repeated until it is answered or for `RETRY_S` seconds; it may run twice.

    obstore retries failed requests itself, but not every one whose answer broke off.
    """
    give_up = time.monotonic() + RETRY_S
    while True:
        try:
            with translated(path, doing):
                return call()
        except StorageUnavailable:
            if time.monotonic() > give_up:
                raise


@contextmanager
def translated(path: object, doing: str) -> Iterator[None]:
    """Turn obstore's errors into ours. Those of conditional puts that fail pass through."""
    exceptions = library(path).exceptions
    try:
        yield
    except (exceptions.AlreadyExistsError, exceptions.PreconditionError, Any2SegError):
        raise
    except FileNotFoundError as error:
        if "NoSuchBucket" in _cause(error):
            raise _no_bucket(path) from None
        raise not_found(path) from None
    except exceptions.BaseError as error:
        raise _failure(path, doing, _cause(error)) from None


def _failure(path: object, doing: str, cause: str) -> Any2SegError:
    if "NoSuchBucket" in cause:
        return _no_bucket(path)
    if not _WORTH_RETRYING.match(cause):
        return ConfigError(
            f"{path}: the store refused to {doing} it ({cause}). Check the URL, and the "
            "credentials in the environment (for s3: AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, "
            "AWS_REGION)."
        )
    return StorageUnavailable(
        f"{path}: cannot {doing} it: {cause}; tried for {RETRY_S:.0f} s. Check the network and the "
        "store, then run again; it resumes where it stopped."
    )


def _no_bucket(path: object) -> ConfigError:
    return ConfigError(f"{path}: no such bucket. Create it, then run again.")


def not_found(path: object) -> FileNotFoundError:
    """The error that a missing file raises on disk."""
    return FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(path))


def hide_secrets(text: str) -> str:
    """`text` without the user part (before `@`) and the query (after `?`) of its URLs."""
    return re.sub(r"(?<=://)\S*@", "***@", re.sub(r"(://[^\s?]*)\?\S*", r"\1?***", text))


def _cause(error: BaseException) -> str:
    """Status and error code of a failed request; the rest of its text may hold an access key."""
    text = str(error)
    status = re.search(r"status code: (\d{3}(?: [A-Z][A-Za-z ]+)?)", text)
    code = re.search(r"<Code>(\w+)</Code>", text)
    parts = [match[1] for match in (status, code) if match]
    return ", ".join(parts) or "no answer"
