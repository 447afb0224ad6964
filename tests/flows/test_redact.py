"""Credentials never leave: from texts, records with tracebacks, and errors with causes."""

import io
import logging
import traceback

import pytest

from flows.redact import RedactingFilter, redacted, scrubbed_errors
from pipeline.errors import Any2SegError

SECRET = "wJalrX/UtnF+EMI"


def denied() -> None:
    raise ValueError(f"denied for {SECRET}")


def no_luck() -> None:
    try:
        denied()
    except ValueError as error:
        raise RuntimeError("no luck") from error


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    monkeypatch.setenv("HF_TOKEN", "hf_abcdefgh")
    monkeypatch.setenv("DB_PASSWORD", "true")
    monkeypatch.setenv("MONKEY_BUSINESS", "bananas")
    monkeypatch.setenv("PWD", "/home/me")


@pytest.mark.parametrize(
    ("text", "clean"),
    [
        (f"key {SECRET}!", "key ***!"),
        ("q=wJalrX%2FUtnF%2BEMI", "q=***"),
        ("hf_abcdefgh", "***"),
        ("s3://me:pw@host/x", "s3://***@host/x"),
        ("https://h/x?X-Amz-Signature=ab12&b=1", "https://h/x?X-Amz-Signature=***&b=1"),
        ("true bananas user@host in /home/me", "true bananas user@host in /home/me"),
    ],
)
def test_secrets_are_hidden_and_nothing_else(text: str, clean: str) -> None:
    assert redacted(text) == clean


def test_a_record_is_cleaned_with_arguments_and_traceback() -> None:
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.addFilter(RedactingFilter())
    logger = logging.Logger("probe")
    logger.addHandler(handler)
    try:
        denied()
    except ValueError:
        logger.exception("with %s", SECRET)
    assert SECRET not in stream.getvalue()
    assert "with ***" in stream.getvalue()
    assert "denied for ***" in stream.getvalue()


def test_an_error_that_holds_a_secret_in_its_cause_is_replaced() -> None:
    with pytest.raises(Any2SegError) as caught, scrubbed_errors():
        no_luck()
    assert SECRET not in "".join(traceback.format_exception(caught.value))
    assert "RuntimeError: no luck" in str(caught.value)


def test_a_redacted_os_error_keeps_its_type_and_errno() -> None:
    with pytest.raises(OSError, match=r"\*\*\*") as caught, scrubbed_errors():
        raise OSError(5, f"put {SECRET}")
    assert caught.value.errno == 5


def test_a_clean_error_is_left_alone() -> None:
    error = KeyError("x")
    with pytest.raises(KeyError) as caught, scrubbed_errors():
        raise error
    assert caught.value is error
