"""A source shard is taken over whole or not at all."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from pipeline.formats.shard_tar import read_shard, write_shard
from pipeline.shards.adopt import adopt_tar
from pipeline.storage.files import sha256_file

SAMPLES = [(f"k{n}", {"rgb.png": bytes([n]) * 9, "label.png": b"l"}) for n in range(3)]
KEYS = [key for key, _ in SAMPLES]


@pytest.fixture
def source(tmp_path: Path) -> Path:
    write_shard(tmp_path / "in/s.tar", SAMPLES)
    return tmp_path / "in/s.tar"


def test_a_complete_tar_is_hard_linked_with_its_digest_and_spans(
    source: Path, tmp_path: Path
) -> None:
    place = tmp_path / "out/train/train-000000.tar"
    written = adopt_tar(place, source, KEYS)
    assert written is not None
    assert place.stat().st_ino == source.stat().st_ino
    assert written.sha256 == sha256_file(source)
    assert list(read_shard(place, written.sha256)) == SAMPLES
    data = place.read_bytes()
    for (_, members), spans in zip(SAMPLES, written.spans, strict=True):
        assert {
            name: data[span.offset : span.offset + span.num_bytes] for name, span in spans.items()
        } == members


def test_a_tar_is_copied_if_it_cannot_be_linked(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError("another device")

    monkeypatch.setattr(os, "link", refuse)
    written = adopt_tar(tmp_path / "out/s.tar", source, KEYS)
    assert written is not None
    assert (tmp_path / "out/s.tar").read_bytes() == source.read_bytes()
    assert (tmp_path / "out/s.tar").stat().st_ino != source.stat().st_ino


def test_a_symbolic_link_as_source_is_resolved(source: Path, tmp_path: Path) -> None:
    (tmp_path / "link.tar").symlink_to(source)
    place = tmp_path / "out/s.tar"
    assert adopt_tar(place, tmp_path / "link.tar", KEYS) is not None
    assert not place.is_symlink()


def test_a_leftover_of_a_killed_run_is_replaced(source: Path, tmp_path: Path) -> None:
    place = tmp_path / "out/s.tar"
    place.parent.mkdir()
    place.write_bytes(b"half")
    assert adopt_tar(place, source, KEYS) is not None
    assert place.read_bytes() == source.read_bytes()


@pytest.mark.parametrize("keys", [KEYS[:2], KEYS[::-1], [*KEYS, "k3"], []])
def test_a_tar_of_other_samples_is_not_adopted(
    source: Path, tmp_path: Path, keys: list[str]
) -> None:
    assert adopt_tar(tmp_path / "out/s.tar", source, keys) is None
    assert not (tmp_path / "out").exists()


def test_a_tar_with_a_repeated_member_name_is_not_adopted(tmp_path: Path) -> None:
    import io
    import tarfile

    path = tmp_path / "s.tar"
    with tarfile.open(path, "w") as tar:
        for data in (b"1", b"2"):
            info = tarfile.TarInfo("k.rgb.png")
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    assert adopt_tar(tmp_path / "out/s.tar", path, ["k"]) is None
