"""Shards: reproducible tars that webdataset, tarfile and byte offsets read alike; damage is seen."""

from __future__ import annotations

import gc
import io
import tarfile
import time
from pathlib import Path

import pytest
import webdataset
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.errors import CorruptShard
from pipeline.formats.shard_tar import local_shard, read_shard, shard_name, write_shard
from pipeline.storage.files import sha256_file

SAMPLES = [
    (f"train_{n:03d}", {"rgb.png": bytes([n]) * 700, "label.png": b"l", "meta.json": b"{}"})
    for n in range(5)
]


def test_the_same_samples_give_the_same_bytes(tmp_path: Path) -> None:
    one = write_shard(tmp_path / "one.tar", SAMPLES)
    time.sleep(1.1)  # a time stamp would show
    reordered = [(key, dict(reversed(members.items()))) for key, members in SAMPLES]
    two = write_shard(tmp_path / "two.tar", reordered)
    assert one == two
    assert (tmp_path / "one.tar").read_bytes() == (tmp_path / "two.tar").read_bytes()


def test_bytes_equal_webdatasets_own_writer(tmp_path: Path) -> None:
    write_shard(tmp_path / "ours.tar", SAMPLES)
    plain = {"user": "", "group": "", "mtime": 0, "encoder": False}
    with (
        (tmp_path / "theirs.tar").open("wb") as file,
        webdataset.TarWriter(file, **plain) as writer,
    ):
        for key, members in SAMPLES:
            writer.write({"__key__": key, **members})
    assert (tmp_path / "ours.tar").read_bytes() == (tmp_path / "theirs.tar").read_bytes()


# webdataset leaves its file to the garbage collector
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_read_shard_spans_and_webdataset_agree(tmp_path: Path) -> None:
    path = tmp_path / "s.tar"
    written = write_shard(path, SAMPLES)
    assert list(read_shard(path, written.sha256)) == [(k, dict(m)) for k, m in SAMPLES]
    data = path.read_bytes()
    for (_, members), spans in zip(SAMPLES, written.spans, strict=True):
        for name, span in spans.items():
            assert data[span.offset : span.offset + span.num_bytes] == members[name]
    with tarfile.open(path) as tar:
        infos = tar.getmembers()
        assert all((i.mtime, i.uid, i.gid, i.uname) == (0, 0, 0, "") for i in infos)
    plain = webdataset.WebDataset(str(path), shardshuffle=False, empty_check=False)
    assert [s["__key__"] for s in plain] == [key for key, _ in SAMPLES]
    del plain
    gc.collect()


def test_member_names_keep_their_case(tmp_path: Path) -> None:
    samples = [("t_A", {"NIR.png": b"1", "nir.png": b"2"})]
    written = write_shard(tmp_path / "s.tar", samples)
    assert list(read_shard(tmp_path / "s.tar", written.sha256)) == samples


@settings(max_examples=30)
@given(kept=st.integers(0, 9_999))
def test_a_truncated_shard_is_refused(kept: int, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.mktemp("t") / "s.tar"
    written = write_shard(path, SAMPLES)
    data = path.read_bytes()
    assert len(data) > 9_999
    path.write_bytes(data[:kept])
    with pytest.raises(CorruptShard, match=r"expected sha256 .*any2seg prepare"):
        next(read_shard(path, written.sha256))


def test_a_flipped_byte_or_a_missing_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "s.tar"
    written = write_shard(path, SAMPLES)
    data = bytearray(path.read_bytes())
    data[600] ^= 1
    path.write_bytes(data)
    with pytest.raises(CorruptShard, match="found "):
        local_shard(path, written.sha256)
    path.unlink()
    with pytest.raises(CorruptShard, match="found no file"):
        local_shard(path, written.sha256)


def test_a_member_name_never_becomes_a_path(tmp_path: Path) -> None:
    """Even in a tar that carries the right digest."""
    path = tmp_path / "in" / "s.tar"
    path.parent.mkdir()
    with tarfile.open(path, "w") as tar:
        for name in ("../../evil.png", "/tmp/evil2.png", "ok.rgb.png"):
            info = tarfile.TarInfo(name)
            info.size = 3
            tar.addfile(info, io.BytesIO(b"bad"))
    before = sorted(tmp_path.rglob("*"))
    keys = [key for key, _ in read_shard(path, sha256_file(path))]
    assert keys[-1] == "ok"
    assert sorted(tmp_path.rglob("*")) == before
    assert not (tmp_path.parent / "evil.png").exists()


def test_pickled_members_are_not_unpickled(tmp_path: Path) -> None:
    bomb = b"cos\nsystem\n(S'false'\ntR."
    samples = [("k", {"x.pkl": bomb, "y.pth": bomb, "z.pyd": bomb})]
    written = write_shard(tmp_path / "s.tar", samples)
    assert list(read_shard(tmp_path / "s.tar", written.sha256)) == samples


def test_a_name_too_long_for_the_format_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="name is too long"):
        write_shard(tmp_path / "s.tar", [("k" * 100, {"rgb.png": b""})])
    assert list(tmp_path.iterdir()) == []


def test_shard_names_sort_by_index() -> None:
    assert shard_name("train", 42) == "train-000042"
