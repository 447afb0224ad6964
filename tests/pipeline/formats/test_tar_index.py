"""Tars are grouped as webdataset groups them, and only whole ones are believed."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import pytest
import webdataset
from webdataset.tariterators import group_by_keys, tar_file_expander

from pipeline.errors import DatasetError
from pipeline.formats.tar_index import list_tar


def write(path: Path, *names: str) -> Path:
    with webdataset.TarWriter(str(path)) as sink:
        for key in dict.fromkeys(name.partition(".")[0] for name in names):
            endings = [n.partition(".")[2] for n in names if n.partition(".")[0] == key]
            sink.write({"__key__": key, **{e: f"{key}.{e}".encode() for e in endings}})
    return path


def test_list_tar_equals_webdatasets_samples(tmp_path: Path) -> None:
    names = ("a.rgb.png", "a.label.png", "b_1.rgb.png", "b_1.meta.json", "c-2.X.png")
    path = write(tmp_path / "s.tar", *names)
    with path.open("rb") as stream:
        files = tar_file_expander([{"url": "s", "stream": stream}])
        expected = [
            (s["__key__"], {k: v for k, v in s.items() if not k.startswith("__")})
            for s in group_by_keys(files, lcase=False)
        ]
    found = [
        (sample.key, {e: m.read_bytes() for e, m in sample.by_ending.items()})
        for sample in list_tar(path)
    ]
    assert found == expected
    assert [m.suffix for s in list_tar(path) for m in s.members].count(".png") == 4


def test_a_members_text_is_tar_and_name(tmp_path: Path) -> None:
    path = write(tmp_path / "s.tar", "a.rgb.png")
    (member,) = list_tar(path)[0].members
    assert str(member) == f"{path}:a.rgb.png"
    assert (member.key, member.ending) == ("a", "rgb.png")


def test_an_empty_tar_has_no_samples(tmp_path: Path) -> None:
    tarfile.open(tmp_path / "s.tar", "w").close()
    assert list_tar(tmp_path / "s.tar") == []


def test_every_truncation_is_detected(tmp_path: Path) -> None:
    path = write(tmp_path / "s.tar", "a.rgb.png", "b.rgb.png")
    data = path.read_bytes()
    for kept in range(0, 4 * 512 + 511, 64):
        path.write_bytes(data[:kept])
        with pytest.raises(DatasetError, match="expected a whole uncompressed tar"):
            list_tar(path)


def test_a_compressed_tar_is_refused(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "s.tar", "w:gz") as tar:
        tar.addfile(tarfile.TarInfo("a.png"), io.BytesIO())
    with pytest.raises(DatasetError, match="uncompressed tar"):
        list_tar(tmp_path / "s.tar")
