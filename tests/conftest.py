"""A real S3 server on loopback, for every room's tests of object stores."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.storage import object_store as remote_client
from pipeline.storage.pure_remote_path import CacheConfig
from pipeline.storage.remote_path import RemotePath
from tests.support.object_server import ObjectServer


@pytest.fixture
def object_server(monkeypatch: pytest.MonkeyPatch) -> Iterator[ObjectServer]:
    """The server, with the environment that leads to it; set `fail` to let requests fail."""
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    with ObjectServer() as server:
        for name, value in server.environment.items():
            monkeypatch.setenv(name, value)
        remote_client.forget_connections()
        yield server
    remote_client.forget_connections()


@pytest.fixture
def prefix(object_server: ObjectServer, tmp_path: Path) -> RemotePath:
    """A prefix in the server's bucket that nobody else uses, with a cache of copies of its own."""
    cache = CacheConfig(tmp_path / "copies", 1_000_000_000)
    return RemotePath.of(f"s3://{object_server.bucket}/{uuid.uuid4().hex}", cache)
