"""Files that two splits share are found by their bytes; equal labels and equal lengths are no finding."""

from __future__ import annotations

import tarfile
from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import pytest

from pipeline.config.config import Config
from pipeline.datasets.base import SourceSample
from pipeline.onboarding.doctor import examine
from pipeline.onboarding.doctor_rules import notes, problems
from pipeline.onboarding.shared_files import shared_files

Listing = dict[str, list[SourceSample]]


def sample(folder: Path, split: str, name: str, **files: bytes) -> SourceSample:
    paths = {}
    for part, data in files.items():
        path = folder / split / f"{name}_{part}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        paths[part] = str(path)
    return SourceSample(f"{split}_{name}", split, {n: p for n, p in paths.items() if n != "label"},
                        paths.get("label"))  # fmt: skip


def listed(*samples: SourceSample) -> Listing:
    listing: Listing = {}
    for one in samples:
        listing.setdefault(one.split, []).append(one)
    return listing


def test_equal_files_of_two_splits_are_named(tmp_path: Path) -> None:
    long = b"x" * 10_000
    found = shared_files(
        listed(
            sample(tmp_path, "train", "a", rgb=long + b"1", label=b"same"),
            sample(tmp_path, "train", "b", rgb=long + b"2", label=b"same"),
            sample(tmp_path, "val", "c", rgb=long + b"2", label=b"same"),
            sample(tmp_path, "val", "d", rgb=long + b"3", label=b"same"),
            sample(tmp_path, "test", "e", rgb=b"short", label=b"same"),
        )
    )
    assert [(one.splits, one.count, one.name, one.keys) for one in found] == [
        (("train", "val"), 1, "rgb", ("train_b", "val_c"))
    ]
    assert "1 rgb file of val equal to one of train (first: val_c and train_b)" in str(found[0])


@pytest.mark.parametrize("splits", [("train", "train"), ("val", "val")])
def test_equal_files_of_one_split_are_no_finding(tmp_path: Path, splits: tuple[str, str]) -> None:
    samples = [sample(tmp_path, split, str(n), rgb=b"x") for n, split in enumerate(splits)]
    assert shared_files(listed(*samples)) == []


def test_another_sensor_is_another_file_and_a_missing_file_is_left_out(tmp_path: Path) -> None:
    one = sample(tmp_path, "train", "a", rgb=b"x")
    other = sample(tmp_path, "val", "b", nir=b"x")
    lost = sample(tmp_path, "val", "c", rgb=b"x")
    Path(lost.files["rgb"]).unlink()
    assert shared_files(listed(one, other, lost)) == []


def test_each_two_splits_are_a_finding(tmp_path: Path) -> None:
    samples = [sample(tmp_path, split, "a", rgb=b"x") for split in ("val", "train", "extra")]
    assert [one.splits for one in shared_files(listed(*samples))] == [
        ("train", "val"),
        ("train", "extra"),
        ("val", "extra"),
    ]


def test_members_of_tars_are_compared(tmp_path: Path) -> None:
    samples = []
    for split in ("train", "val"):
        path = tmp_path / f"{split}.tar"
        with tarfile.open(path, "w") as tar:
            for name, data in (("a.rgb.png", b"image"), ("a.label.png", b"label")):
                info = tarfile.TarInfo(name)
                info.size = len(data)
                tar.addfile(info, BytesIO(data))
        ranges = (("rgb.png", 512, 5), ("label.png", 1536, 5))
        files = {"rgb": str(path)}
        samples.append(
            SourceSample(f"{split}_a", split, files, str(path), shard=str(path), ranges=ranges)
        )
    (found,) = shared_files(listed(*samples))
    assert (found.splits, found.name) == (("train", "val"), "rgb.png")


def test_the_doctor_says_so_and_what_was_hidden(
    make_source: Callable[..., Path], make_config: Callable[..., Config]
) -> None:
    root = make_source(train=3, val=2)
    first, second = (
        sorted((root / "rgb/train").iterdir())[0],
        sorted((root / "rgb/val").iterdir())[1],
    )
    second.write_bytes(first.read_bytes())
    (root / "rgb/train/._000.png").write_bytes(b"of a Mac")
    (root / "label/val/._000.png").write_bytes(b"of a Mac")
    diagnosis = examine(make_config(), progress=False)
    assert problems(diagnosis) == []
    assert any("1 rgb file of val equal to one of train" in note for note in notes(diagnosis))
    assert any("2 hidden files passed over (._000.png, ...)" in note for note in notes(diagnosis))
