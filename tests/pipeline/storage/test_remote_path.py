"""Paths in an object store behave like pathlib's, against a real server on loopback."""

from __future__ import annotations

import io
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.errors import ConfigError, StorageUnavailable
from pipeline.storage import object_store as remote_client
from pipeline.storage import remote_path as remote
from pipeline.storage.files import (
    find_paths,
    make_folder,
    map_paths,
    read_json,
    read_range,
    relative,
    sha256_file,
    sweep_partials,
    write_bytes,
    write_json,
)
from pipeline.storage.remote_path import RemotePath
from tests.support.object_server import ObjectServer

server = pytest.mark.server


@server
def test_what_is_written_is_read(prefix: RemotePath) -> None:
    path, data = prefix / "a/b.bin", np.random.default_rng(0).bytes(20_000_000)
    write_bytes(path, data)
    assert path.read_bytes() == data
    assert path.stat().st_size == len(data)
    assert read_range(path, 19_999_990, 10) == data[-10:]
    assert sha256_file(path) == sha256_file_of(data)
    with path.open("rb") as file:
        file.seek(-1000, io.SEEK_END)
        assert file.read() == data[-1000:]
        file.seek(5)
        assert file.read(7) == data[5:12]
    path.unlink()
    assert not path.exists()
    with pytest.raises(FileNotFoundError) as missing:
        path.read_bytes()
    assert missing.value.filename == str(path)


def sha256_file_of(data: bytes) -> str:
    import hashlib

    return hashlib.sha256(data).hexdigest()


@server
def test_json_parquet_and_empty_objects(prefix: RemotePath) -> None:
    write_json(prefix / "x.json", {"a": 1})
    assert read_json(prefix / "x.json") == {"a": 1}
    write_bytes(prefix / "empty", b"")
    assert (prefix / "empty").read_bytes() == b""
    assert sha256_file(prefix / "empty") == sha256_file_of(b"")
    buffer = io.BytesIO()
    pq.write_table(pa.table({"n": list(range(1000))}), buffer)
    write_bytes(prefix / "t.parquet", buffer.getvalue())
    with (prefix / "t.parquet").open("rb") as file:
        assert pq.ParquetFile(file).read(use_threads=False).num_rows == 1000


@server
def test_write_json_leaves_an_identical_object_alone(
    prefix: RemotePath, object_server: ObjectServer
) -> None:
    write_json(prefix / "x.json", {"a": 1})
    before = object_server.requests["PUT"]
    write_json(prefix / "x.json", {"a": 1})
    assert object_server.requests["PUT"] == before


@server
def test_listings_equal_pathlibs(prefix: RemotePath, tmp_path: Path) -> None:
    names = ["a/x.tar", "a/y.parquet", "a/y.refused.parquet", "b/z.tar", "b/deep/er.tar", "top"]
    for name in names:
        write_bytes(prefix / name, b"1")
        write_bytes(tmp_path / "w" / name, b"1")
    local = tmp_path / "w"
    for pattern in ("*", "*/*.tar", "*/*.parquet", "a/x.tar", "a/*", "none/*", "b/deep", "t?p"):
        wanted = [relative(path, local) for path in find_paths(local, pattern)]
        assert [relative(path, prefix) for path in find_paths(prefix, pattern)] == wanted, pattern
    assert [relative(p, prefix) for p in prefix.rglob("*.tar")] == [
        "a/x.tar",
        "b/deep/er.tar",
        "b/z.tar",
    ]
    assert [p.name for p in prefix.iterdir()] == ["a", "b", "top"]
    assert [(prefix / n).is_dir() for n in ("a", "top", "none")] == [True, False, False]
    assert [(prefix / n).is_file() for n in ("a", "top", "none")] == [False, True, False]
    assert [(prefix / n).exists() for n in ("a", "top", "none")] == [True, True, False]
    assert {name: entry.num_bytes for name, entry in prefix.entries().items()} == dict.fromkeys(
        names, 1
    )


@server
def test_make_folder_and_sweep_partials_do_nothing_in_a_store(prefix: RemotePath) -> None:
    make_folder(prefix / "a")
    write_bytes(prefix / "a/x.partial", b"not ours")
    assert sweep_partials(prefix) == 0
    assert not (prefix / "b").is_dir()


@server
def test_map_paths_keeps_the_order(prefix: RemotePath) -> None:
    paths = [prefix / f"{index:03d}" for index in range(60)]
    map_paths(lambda path: write_bytes(path, path.name.encode()), paths)
    assert map_paths(RemotePath.read_text, paths) == [path.name for path in paths]


@server
def test_a_conditional_put_has_one_winner(prefix: RemotePath) -> None:
    path = prefix / "x"
    first = path.write_if(None, b"one")
    assert first is not None
    assert path.write_if(None, b"two") is None
    assert path.write_if('"bad"', b"two") is None
    second = path.write_if(first, b"two", {"note": "v"})
    assert second == path.etag()
    assert path.write_if(first, b"three") is None
    assert path.read_tagged().data == b"two"
    assert path.read_tagged().tags["note"] == "v"
    assert (prefix / "gone").write_if(first, b"x") is None


@server
@pytest.mark.parametrize("seed", range(3))
def test_results_are_right_while_a_fifth_of_the_requests_fail(
    prefix: RemotePath, object_server: ObjectServer, seed: int
) -> None:
    object_server.fail_from(seed, 0.2)
    for index in range(40):
        path = prefix / f"{index % 4}/{index}"
        etag = path.write_if(None, f"{seed} {index}".encode())
        assert etag is not None, "its own put must count as its own"
        assert path.write_if(etag, f"{index}".encode() * 500) is not None
    assert len(prefix.entries()) == 40
    texts = map_paths(RemotePath.read_text, find_paths(prefix, "*/*"))
    assert sorted(texts) == sorted(str(index) * 500 for index in range(40))
    for path in find_paths(prefix, "0/*"):
        path.unlink()
    assert len(prefix.entries()) == 30
    failures = sum(object_server.requests[kind] for kind in ("500", "503", "cut", "lost"))
    assert failures > 20


@server
def test_an_unreachable_store_raises_storage_unavailable_with_a_remedy(
    prefix: RemotePath, object_server: ObjectServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (remote, remote_client):
        monkeypatch.setattr(module, "RETRY_S", 0.3)
    remote_client.forget_connections()
    object_server.fail_from(0, 1.0)
    for act in (
        lambda: write_bytes(prefix / "x", b""),
        lambda: (prefix / "x").read_bytes(),
        lambda: (prefix / "x").write_if(None, b""),
        lambda: prefix.entries(),
    ):
        with pytest.raises(StorageUnavailable, match=r"s3://bucket/.*run again") as failure:
            act()
        assert isinstance(failure.value, OSError), "a flow tries OSErrors again"


@server
def test_a_missing_bucket_is_a_config_error(object_server: ObjectServer) -> None:
    path = RemotePath("s3://no-such-bucket", "x")
    for act in (path.read_bytes, path.exists, lambda: path.write(b""), path.entries):
        with pytest.raises(ConfigError, match="no such bucket"):
            act()


@server
def test_use_in_a_forked_process_raises(prefix: RemotePath) -> None:
    script = """
import os, sys
from pipeline.storage.remote_path import RemotePath
path = RemotePath.of(sys.argv[1])
path.exists()
if os.fork() == 0:
    try:
        path.exists()
    except RuntimeError as error:
        os._exit(7 if "spawn" in str(error) else 1)
    os._exit(1)
sys.exit(os.waitstatus_to_exitcode(os.wait()[1]))
"""
    done = subprocess.run([sys.executable, "-c", script, str(prefix)], timeout=60, check=False)
    assert done.returncode == 7
