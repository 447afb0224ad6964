"""Objects that several writers bring: the first stays, whatever is broken or foreign goes."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from pipeline.storage.publish import Published, publish_once
from pipeline.storage.remote_path import RemotePath
from tests.support.object_server import ObjectServer


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def test_on_disk_publish_once_overwrites(tmp_path: Path) -> None:
    path = tmp_path / "a/x"
    assert publish_once(path, b"one", "s") == Published(sha256(b"one"))
    assert publish_once(path, b"two", "s") == Published(sha256(b"two"))
    assert path.read_bytes() == b"two"


@pytest.mark.server
def test_in_a_store_publish_once_keeps_the_first_object(prefix: RemotePath) -> None:
    path = prefix / "x"
    first = publish_once(path, b"one", "s")
    assert (first.sha256, first.etag) == (sha256(b"one"), path.etag())
    assert publish_once(path, b"two", "s") == first
    assert path.read_bytes() == b"one"


@pytest.mark.server
@pytest.mark.parametrize("kind", ["foreign", "damaged", "untagged"])
def test_publish_once_replaces_a_corrupted_or_foreign_object(prefix: RemotePath, kind: str) -> None:
    path = prefix / "x"
    if kind == "foreign":
        publish_once(path, b"old", "another shard")
    elif kind == "damaged":
        path.write(b"flipped", {"sha256": sha256(b"whole"), "madefrom": "s"})
    else:
        path.write(b"old")
    placed = publish_once(path, b"new", "s")
    assert placed.sha256 == sha256(b"new")
    assert (path.read_bytes(), path.etag()) == (b"new", placed.etag)


@pytest.mark.server
def test_publish_once_with_failing_requests_keeps_the_first_object(
    prefix: RemotePath, object_server: ObjectServer
) -> None:
    object_server.fail_from(5, 0.25)
    for index in range(30):
        data = str(index).encode()
        assert publish_once(prefix / str(index), data, "s").sha256 == sha256(data)
        assert publish_once(prefix / str(index), b"late", "s").sha256 == sha256(data)
