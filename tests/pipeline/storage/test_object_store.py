"""What an object store's failures become, and that no message repeats a secret."""

from __future__ import annotations

import sys

import pytest

from pipeline.errors import ConfigError, StorageUnavailable
from pipeline.storage import object_store as remote_client
from pipeline.storage.object_store import hide_secrets, insist
from pipeline.storage.remote_path import RemotePath
from tests.support.object_server import ObjectServer


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("s3://me:pass@bucket/x", "s3://***@bucket/x"),
        ("s3://me:pa/ss@bucket/x", "s3://***@bucket/x"),
        ("at https://host/x?sig=abc, twice", "at https://host/x?*** twice"),
        ("what? an address@home", "what? an address@home"),
    ],
)
def test_secrets_in_urls_are_hidden(text: str, wanted: str) -> None:
    assert hide_secrets(text) == wanted


def test_a_missing_extra_names_the_install_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "obstore", None)
    monkeypatch.setitem(sys.modules, "obstore.exceptions", None)
    with pytest.raises(ConfigError, match=r'pip install "any2seg\[s3\]"'):
        RemotePath.of("s3://bucket/x").read_bytes()


@pytest.mark.parametrize(
    ("answer", "kind", "words"),
    [
        ("status code: 503 Service Unavailable", StorageUnavailable, "503 Service Unavailable"),
        ("status code: 429 Too Many Requests", StorageUnavailable, "429"),
        ("error sending request", StorageUnavailable, "no answer"),
        (
            "status code: 403 Forbidden: <Code>SignatureDoesNotMatch</Code><AWSAccessKeyId>AKIASECRET",
            ConfigError,
            "403 Forbidden, SignatureDoesNotMatch",
        ),
        (
            "status code: 400 Bad Request: <Code>AuthorizationHeaderMalformed</Code>",
            ConfigError,
            "400",
        ),
    ],
)
def test_errors_do_not_repeat_the_servers_answer(
    monkeypatch: pytest.MonkeyPatch, answer: str, kind: type[Exception], words: str
) -> None:
    from obstore.exceptions import GenericError

    def fail() -> None:
        raise GenericError(answer)

    monkeypatch.setattr(remote_client, "RETRY_S", 0.0)
    with pytest.raises(kind, match=words) as failure:
        insist("s3://bucket/x", "read", fail)
    assert "AKIASECRET" not in str(failure.value)
    assert failure.value.__cause__ is None
    assert failure.value.__suppress_context__


@pytest.mark.server
def test_no_repr_or_error_holds_the_credentials(
    object_server: ObjectServer, prefix: RemotePath
) -> None:
    said = [repr(prefix), str(prefix), repr(remote_client.connect(prefix.root))]
    for act in ((prefix / "none").read_bytes, RemotePath("s3://no-bucket", "x").read_bytes):
        with pytest.raises((FileNotFoundError, ConfigError)) as failure:
            act()
        said.append(repr(failure.value))
    assert object_server.environment["AWS_SECRET_ACCESS_KEY"] not in " ".join(said)
