"""The cache of local copies: verified, bounded, the least recently used first, safe to share."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from pipeline.errors import DigestMismatch
from pipeline.storage.files import write_bytes
from pipeline.storage.local_copies import fetch, local_copy, shrink
from pipeline.storage.pure_remote_path import CacheConfig
from pipeline.storage.remote_path import RemotePath
from tests.support.object_server import ObjectServer

pytestmark = pytest.mark.server
SIZE = 1000


def put(prefix: RemotePath, index: int) -> tuple[RemotePath, str, bytes]:
    data = bytes([index]) * SIZE
    write_bytes(prefix / str(index), data)
    return prefix / str(index), hashlib.sha256(data).hexdigest(), data


def bounded(prefix: RemotePath, folder: Path, copies: float) -> RemotePath:
    return replace(prefix, cache=CacheConfig(folder, int(copies * SIZE)))


def names(folder: Path) -> set[str]:
    return {path.name for path in (folder / "objects").glob("*/*")}


def test_a_copy_is_fetched_once(prefix: RemotePath, object_server: ObjectServer) -> None:
    path, digest, data = put(prefix, 1)
    assert local_copy(path, digest).read_bytes() == data
    before = object_server.requests.total()
    assert local_copy(path, digest).read_bytes() == data
    assert object_server.requests.total() == before


def test_an_object_with_other_bytes_is_refused_and_not_kept(prefix: RemotePath) -> None:
    path, digest, _ = put(prefix, 1)
    with pytest.raises(DigestMismatch, match=f"expected sha256 {'0' * 12}, found {digest[:12]}"):
        fetch(path, "0" * 64)
    assert path.cache is not None
    assert not names(path.cache.folder)
    with pytest.raises(FileNotFoundError):
        fetch(prefix / "none", digest)


def test_a_corrupted_copy_is_fetched_again(prefix: RemotePath) -> None:
    path, digest, data = put(prefix, 1)
    copy = fetch(path, digest)
    copy.write_bytes(b"rot")
    assert fetch(path, digest).read_bytes() == data


def test_the_least_recently_used_copies_are_deleted_first(
    prefix: RemotePath, tmp_path: Path
) -> None:
    folder = tmp_path / "bounded"
    objects = [put(bounded(prefix, folder, 3.5), index) for index in range(5)]
    for age, (path, digest, _) in zip((40, 30, 20), objects[:3], strict=True):
        used = fetch(path, digest).stat().st_mtime - age
        os.utime(fetch(path, digest), (used, used))
    fetch(*objects[0][:2])  # used again
    fetch(*objects[3][:2])
    assert names(folder) == {digest for _, digest, _ in (objects[0], objects[2], objects[3])}
    fetch(*objects[4][:2])
    assert names(folder) == {digest for _, digest, _ in (objects[0], objects[3], objects[4])}


def test_a_copy_larger_than_the_bound_is_kept(prefix: RemotePath, tmp_path: Path) -> None:
    path, digest, data = put(bounded(prefix, tmp_path / "bounded", 0.5), 1)
    assert fetch(path, digest).read_bytes() == data


def test_an_open_copy_stays_readable(prefix: RemotePath, tmp_path: Path) -> None:
    small = bounded(prefix, tmp_path / "bounded", 1)
    path, digest, data = put(small, 1)
    with fetch(path, digest).open("rb") as file:
        assert small.cache is not None
        assert shrink(replace(small.cache, max_bytes=0)) == 1
        assert file.read() == data
    assert not names(tmp_path / "bounded")


def test_abandoned_temporary_files_are_deleted(prefix: RemotePath, tmp_path: Path) -> None:
    small = bounded(prefix, tmp_path / "bounded", 2)
    path, digest, _ = put(small, 1)
    copy = fetch(path, digest)
    left = copy.with_name("x.partial")
    fresh = copy.with_name("y.partial")
    for partial in (left, fresh):
        partial.write_bytes(b"0" * 2 * SIZE)
    os.utime(left, (0, 0))
    assert small.cache is not None
    assert shrink(small.cache) == 1
    assert {path.name for path in copy.parent.iterdir()} == {digest, "y.partial"}


FETCH = """
import sys
from pathlib import Path
from pipeline.storage.remote_path import RemotePath
from pipeline.storage.pure_remote_path import CacheConfig
from pipeline.storage.local_copies import fetch
url, folder, digests = sys.argv[1], Path(sys.argv[2]), sys.argv[3:]
prefix = RemotePath.of(url, CacheConfig(folder, 2500))
for _ in range(5):
    for index, digest in enumerate(digests):
        path = prefix / str(index)
        while True:
            try:
                data = fetch(path, digest).read_bytes()
                break
            except FileNotFoundError:
                pass  # the other process deleted the copy first
        assert data == bytes([index]) * 1000
"""


def test_several_processes_share_a_folder(prefix: RemotePath, tmp_path: Path) -> None:
    digests = [put(prefix, index)[1] for index in range(4)]
    command = [sys.executable, "-c", FETCH, str(prefix), str(tmp_path / "shared"), *digests]
    processes = [subprocess.Popen(command) for _ in range(2)]
    assert [process.wait(timeout=120) for process in processes] == [0, 0]
    held = sum(path.stat().st_size for path in (tmp_path / "shared/objects").glob("*/*"))
    assert held <= 2500
