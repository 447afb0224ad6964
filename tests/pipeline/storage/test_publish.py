"""Objects that several writers bring: the first stays, whatever is broken or foreign goes."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from pipeline.storage.publish import Placed, place
from pipeline.storage.remote_path import RemotePath
from tests.support.object_server import ObjectServer


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def test_on_disk_the_last_writer_stays(tmp_path: Path) -> None:
    path = tmp_path / "a/x"
    assert place(path, b"one", "s") == Placed(sha256(b"one"))
    assert place(path, b"two", "s") == Placed(sha256(b"two"))
    assert path.read_bytes() == b"two"


@pytest.mark.server
def test_in_a_store_the_first_writer_stays(prefix: RemotePath) -> None:
    path = prefix / "x"
    first = place(path, b"one", "s")
    assert (first.sha256, first.etag) == (sha256(b"one"), path.etag())
    assert place(path, b"two", "s") == first
    assert path.read_bytes() == b"one"


@pytest.mark.server
@pytest.mark.parametrize("kind", ["foreign", "damaged", "untagged"])
def test_what_is_not_whole_or_not_ours_is_replaced(prefix: RemotePath, kind: str) -> None:
    path = prefix / "x"
    if kind == "foreign":
        place(path, b"old", "another shard")
    elif kind == "damaged":
        path.write(b"flipped", {"sha256": sha256(b"whole"), "madefrom": "s"})
    else:
        path.write(b"old")
    placed = place(path, b"new", "s")
    assert placed.sha256 == sha256(b"new")
    assert (path.read_bytes(), path.etag()) == (b"new", placed.etag)


@pytest.mark.server
def test_a_failing_store_gives_the_same_end(
    prefix: RemotePath, object_server: ObjectServer
) -> None:
    object_server.fail_from(5, 0.25)
    for index in range(30):
        data = str(index).encode()
        assert place(prefix / str(index), data, "s").sha256 == sha256(data)
        assert place(prefix / str(index), b"late", "s").sha256 == sha256(data)
