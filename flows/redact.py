"""Keeps credentials out of everything that a flow reports: logs, errors, artifacts, notifications.

Secrets are the values of environment variables that are named like a credential, and the user part and
the signed query of a URL. `install` puts a filter on every handler of Prefect's
loggers; `scrubbed_errors` cleans the errors that become states.
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import quote

from pipeline.errors import Any2SegError

HIDDEN = "***"
_SECRET_NAME = re.compile(
    r"TOKEN|SECRET|PASSWORD|PASSWD|CREDENTIAL|PRIVATE|AUTH_STRING|WEBHOOK"
    r"|(^|_)(API)?KEY(_|$)|_(PAT|PWD)$",
    re.IGNORECASE,
)
_USERINFO = re.compile(r"(://)[^/\s@'\"]+@")
_QUERY = re.compile(
    r"([?&](?:x-amz-[a-z-]+|sig|signature|token|password|key|secret)=)[^&\s'\"]+", re.IGNORECASE
)
_MIN_LENGTH = 6
"""Shorter values are words like `true`; hiding them would garble every log."""


def secrets() -> tuple[str, ...]:
    """The secret values of this environment, longest first."""
    values = {
        value
        for name, value in os.environ.items()
        if _SECRET_NAME.search(name) and len(value) >= _MIN_LENGTH
    }
    values |= {quote(value, safe="") for value in values}
    return tuple(sorted(values, key=len, reverse=True))


def redacted(text: str) -> str:
    """`text` with every secret replaced by `***`."""
    for secret in secrets():
        text = text.replace(secret, HIDDEN)
    return _QUERY.sub(rf"\1{HIDDEN}", _USERINFO.sub(rf"\1{HIDDEN}@", text))


class RedactingFilter(logging.Filter):
    """Cleans message and traceback of a record before its handler sees them."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Always True: a record is cleaned, never dropped."""
        record.msg, record.args = redacted(record.getMessage()), ()
        if record.exc_info and not record.exc_text:
            record.exc_text = logging.Formatter().formatException(record.exc_info)
        if record.exc_text:
            record.exc_text, record.exc_info = redacted(record.exc_text), None
        return True


_filter = RedactingFilter()


def install() -> None:
    """Put the filter on the handlers that Prefect's records reach. Calling it again changes nothing."""
    names = [name for name in logging.root.manager.loggerDict if name.startswith("prefect")]
    for logger in (logging.root, *map(logging.getLogger, names)):
        for handler in logger.handlers:
            if _filter not in handler.filters:
                handler.addFilter(_filter)


@contextmanager
def scrubbed_errors() -> Iterator[None]:
    """Replace an error whose text (or whose cause's text) holds a secret by one that does not.

    An `OSError` stays one, so that it is still worth retrying; anything else becomes `Any2SegError`.
    """
    clean: Exception | None = None
    try:
        yield
    except Exception as error:
        clean = _cleaned(error)
        if clean is None:
            raise
    if clean is not None:
        raise clean from None


def _cleaned(error: Exception) -> Exception | None:
    """What to raise instead, or None if nothing in the chain holds a secret."""
    texts = [f"{type(item).__name__}: {item}" for item in _chain(error)]
    if all(redacted(text) == text for text in texts):
        return None
    message = redacted(texts[0])
    return OSError(error.errno, message) if isinstance(error, OSError) else Any2SegError(message)


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """An error, what caused it, and what was being handled then."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
