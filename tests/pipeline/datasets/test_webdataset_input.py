"""Existing shards as the source: taken over as they are where they fit, else written anew."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipeline.config.config import Config
from pipeline.config.load import load_config
from pipeline.datasets.webdataset_input import WebdatasetAdapter, WebdatasetOptions
from pipeline.errors import ConfigError, DatasetError, SampleRefused
from pipeline.formats.image_codec import decode_image, decode_label, encode_array, encode_png
from pipeline.formats.shard_tar import read_shard
from pipeline.modalities import KINDS
from pipeline.shards.manifest import Manifest
from pipeline.shards.prepare import prepare
from pipeline.shards.sample_reader import SampleReader, list_samples
from pipeline.storage.files import sha256_file
from pipeline.workspace import Workspace

SIZE = (6, 5)
CLASSES = ("a", "b", "c")
SPECS = {"rgb": KINDS["rgb"], "depth": KINDS["depth"]}
Members = dict[str, bytes]


def arrays(seed: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng([11, seed])
    return {
        "rgb": rng.integers(0, 256, (*SIZE, 3), dtype=np.uint8),
        "depth": rng.integers(0, 65_536, SIZE, dtype=np.uint16),
        "label": rng.choice(np.array([0, 1, 2, 255], np.uint8), SIZE),
    }


def sample(seed: int, encode: Callable[[np.ndarray], bytes] = encode_png) -> Members:
    ending = "png" if encode is encode_png else "npy.zst"
    members = {f"{name}.{ending}": encode(array) for name, array in arrays(seed).items()}
    return {**members, "json": json.dumps({"condition": "fog", "n": seed}).encode()}


def write_tar(path: Path, samples: Mapping[str, Members]) -> Path:
    """As webdataset's writer does it: a time, a user, any order of the members."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for key, members in samples.items():
            for ending, data in members.items():
                info = tarfile.TarInfo(f"{key}.{ending}")
                info.size, info.mtime, info.uname = len(data), 1_700_000_000, "bigdata"
                tar.addfile(info, io.BytesIO(data))
    return path


def adapter(root: Path, specs: dict = SPECS, **options: object) -> WebdatasetAdapter:
    settings = {"root": root, "classes": CLASSES, **options}
    return WebdatasetAdapter(WebdatasetOptions.model_validate(settings), specs)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "shards"
    write_tar(folder / "train-000.tar", {f"t{n}": sample(n) for n in range(3)})
    write_tar(folder / "train-001.tar", {f"t{n}": sample(n, encode_array) for n in range(3, 5)})
    write_tar(folder / "val-000.tar", {"v5": sample(5)})
    return folder


@pytest.fixture
def make_webdataset_config(root: Path, tmp_path: Path) -> Callable[..., Config]:
    def make(*overrides: str) -> Config:
        (tmp_path / "w.toml").write_text(
            f'name = "w"\nworkspace = "{tmp_path / "ws"}"\n[dataset]\nadapter = "webdataset"\n'
            f'root = "{root}"\nclasses = ["a", "b", "c"]\n'
            "[modalities]\nrgb = {}\ndepth = {}\n[store]\nshard_size = 3\n"
        )
        return load_config(tmp_path / "w.toml", overrides)

    return make


def prepared(config: Config) -> Manifest:
    workspace = Workspace.of(config)
    assert prepare(config, workspace, progress=False).failed == ()
    return Manifest.load(workspace.dataset(config))


def require_pixels(manifest: Manifest, config: Config, count: int) -> None:
    """Both readers give the arrays that were put in."""
    seen = 0
    for shard in manifest.all_shards:
        refs = {r.key: r for r in list_samples(manifest, shard.split, tuple(SPECS))}
        reader = SampleReader(config.specs())
        for key, members in read_shard(shard.path, shard.sha256):
            expected = arrays(int(key.rsplit("_", 1)[-1].lstrip("tv")))
            decoded = reader.read(refs[key])
            np.testing.assert_array_equal(decoded.label, expected["label"])
            for name, spec in SPECS.items():
                np.testing.assert_array_equal(decoded.arrays[name], expected[name])
                (ending,) = [e for e in members if e.startswith(f"{name}.")]
                direct = decode_image(members[ending], spec, key)
                np.testing.assert_array_equal(direct, expected[name])
            seen += 1
    assert seen == count


def test_samples_and_their_conditions(root: Path) -> None:
    opened = adapter(root)
    assert opened.splits() == ("train", "val")
    assert [s.key for s in opened.samples("train")] == ["t0", "t1", "t2", "t3", "t4"]
    assert {s.condition for s in opened.samples("train")} == {"fog"}
    for seed, one in enumerate(opened.samples("train")):
        loaded = opened.load(one)
        for name in SPECS:
            np.testing.assert_array_equal(loaded.arrays[name], arrays(seed)[name])
        np.testing.assert_array_equal(loaded.label, arrays(seed)["label"])


def test_shards_that_fit_are_adopted_unchanged(
    root: Path, make_webdataset_config: Callable
) -> None:
    config = make_webdataset_config()
    manifest = prepared(config)
    sources = sorted(root.glob("*.tar"))
    shards = manifest.all_shards
    assert [s.sha256 for s in shards] == [sha256_file(path) for path in sources]
    assert [s.path.stat().st_ino for s in shards] == [path.stat().st_ino for path in sources]
    require_pixels(manifest, config, 6)


def test_too_large_shards_are_split_without_reencoding(make_webdataset_config: Callable) -> None:
    config = make_webdataset_config("store.shard_size=2")
    manifest = prepared(config)
    assert [s.keys for s in manifest.shards("train")] == [("t0", "t1"), ("t2",), ("t3", "t4")]
    rewritten = manifest.shards("train")[0]
    members = dict(read_shard(rewritten.path, rewritten.sha256))["t0"]
    assert members["rgb.png"] == encode_png(arrays(0)["rgb"])
    assert json.loads(members["meta.json"])["condition"] == "fog"
    require_pixels(manifest, config, 6)


def test_changed_pixels_are_written_again(root: Path, make_webdataset_config: Callable) -> None:
    config = make_webdataset_config("dataset.remap={0=1,1=0,2=2}")
    manifest = prepared(config)
    shard = manifest.shards("val")[0]
    assert shard.sha256 != sha256_file(root / "val-000.tar")
    members = dict(read_shard(shard.path, shard.sha256))["v5"]
    decoded = decode_label(members["label.npy.zst"], "x")
    raw = arrays(5)["label"]
    expected = np.where(raw < 2, 1 - raw, raw)
    np.testing.assert_array_equal(decoded, expected)


def test_a_second_run_does_nothing_and_new_shards_are_appended(
    root: Path, make_webdataset_config: Callable
) -> None:
    config = make_webdataset_config()
    prepared(config)
    assert prepare(config, Workspace.of(config), progress=False).done == 0
    write_tar(root / "train-002.tar", {"t6": sample(6)})
    assert prepare(config, Workspace.of(config), progress=False).done == 1
    require_pixels(Manifest.load(Workspace.of(config).dataset(config)), config, 7)


def test_our_own_shards_are_an_input(make_webdataset_config: Callable) -> None:
    first = prepared(make_webdataset_config())
    again = make_webdataset_config(f"dataset.root={first.folder / 'shards'}")
    second = prepared(again)
    assert [s.sha256 for s in second.all_shards] == [s.sha256 for s in first.all_shards]


def test_images_that_need_a_rule_are_encoded(tmp_path: Path) -> None:
    file = io.BytesIO()
    Image.fromarray(arrays(0)["rgb"]).convert("P").save(file, "PNG")
    members = {"cam.png": file.getvalue(), "label.png": sample(0)["label.png"]}
    write_tar(tmp_path / "train/0.tar", {"a": members})
    opened = adapter(tmp_path, {"rgb": KINDS["rgb"]}, members={"rgb": "cam.png"})
    one = opened.samples("train")[0]
    loaded = opened.load(one)
    assert loaded.arrays["rgb"].shape == (*SIZE, 3)
    assert opened.stored(one, loaded) is None


def test_values_have_units(tmp_path: Path) -> None:
    metres = np.full(SIZE, 1.5, np.float32)
    file = io.BytesIO()
    np.save(file, metres)
    members = {"depth.npy": file.getvalue(), "label.png": sample(0)["label.png"]}
    write_tar(tmp_path / "train/0.tar", {"a": members})
    rule = {"depth": {"bits": 32, "unit": "m"}}
    opened = adapter(tmp_path, {"depth": KINDS["depth"]}, values=rule)
    assert (opened.load(opened.samples("train")[0]).arrays["depth"] == 1500).all()


def test_equal_keys_in_two_splits_need_the_split_in_the_key(tmp_path: Path) -> None:
    for split in ("train", "val"):
        write_tar(tmp_path / f"{split}/0.tar", {"000": sample(0)})
    opened = adapter(tmp_path)
    with pytest.raises(SampleRefused, match='keys = "with_split"'):
        opened.load(opened.samples("train")[0])
    opened = adapter(tmp_path, keys="with_split")
    assert [opened.samples(s)[0].key for s in opened.splits()] == ["train_000", "val_000"]
    one = opened.samples("val")[0]
    assert opened.stored(one, opened.load(one)) is None


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"rgb.png": None}, r"0.tar: a has no rgb.\{npy.zst,png,"),
        ({"label.png": None}, "a has no label"),
        ({"rgb.png": b""}, "0.tar:a.rgb.png: expected an image, found an empty file"),
        ({"rgb.png": b"text"}, "0.tar:a.rgb.png: expected a whole image"),
        ({"rgb.npy.zst": b"\x28\xb5\x2f\xfd"}, "expected one rgb member, found .*dataset.members"),
        ({"depth.png": encode_png(np.zeros((2, 2), np.uint16))}, "expected the label's size"),
        ({"label.png": encode_png(np.full(SIZE, 9, np.uint8))}, "label id 9 is out of range"),
    ],
)
def test_bad_samples_are_refused_by_member(tmp_path: Path, change: dict, reason: str) -> None:
    members = {**sample(0), **change}
    kept = {name: data for name, data in members.items() if data is not None}
    write_tar(tmp_path / "train/0.tar", {"a": kept, "b": sample(1)})
    opened = adapter(tmp_path)
    with pytest.raises(SampleRefused, match=reason):
        opened.load(opened.samples("train")[0])
    assert opened.load(opened.samples("train")[1]).label.shape == SIZE


def test_a_corrupted_frame_is_refused(tmp_path: Path) -> None:
    members = sample(0, encode_array)
    members["rgb.npy.zst"] = members["rgb.npy.zst"][:-3]
    write_tar(tmp_path / "train/0.tar", {"a": members})
    opened = adapter(tmp_path)
    with pytest.raises(SampleRefused, match="a.rgb.npy.zst: expected a .npy in zstd"):
        opened.load(opened.samples("train")[0])


def test_hostile_member_names_stay_names(tmp_path: Path) -> None:
    tar = {"../../evil": sample(0), "/etc/x": sample(1), "a b": sample(2), "ok": sample(3)}
    write_tar(tmp_path / "train/0.tar", tar)
    opened = adapter(tmp_path)
    keys = [s.key for s in opened.samples("train")]
    assert keys == ["______evil", "_etc_x", "a_b", "ok"]
    stored = [opened.stored(s, opened.load(s)) for s in opened.samples("train")]
    assert [one is not None for one in stored] == [False, False, False, True]
    assert [p.name for p in tmp_path.rglob("*")] == ["train", "0.tar"]


def test_links_and_folders_in_a_tar_are_passed_over(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "train/0.tar", {"a": sample(0)})
    with tarfile.open(path, "a") as tar:
        for name, kind in (("b.rgb.png", tarfile.SYMTYPE), ("c.d", tarfile.DIRTYPE)):
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, "/etc/passwd"
            tar.addfile(info)
    assert [s.key for s in adapter(tmp_path).samples("train")] == ["a"]


@pytest.mark.parametrize("kept", [0, 100, 700, 1500])
def test_a_truncated_tar_is_named(tmp_path: Path, kept: int) -> None:
    path = write_tar(tmp_path / "train/0.tar", {"a": sample(0), "b": sample(1)})
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(DatasetError, match=r"0.tar: expected a whole uncompressed tar"):
        adapter(tmp_path).splits()


def test_roots_without_shards_and_bad_options_are_named(tmp_path: Path, root: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(DatasetError, match="expected <split>/\\*.tar or <split>-"):
        adapter(empty).splits()
    with pytest.raises(DatasetError, match="no such folder"):
        adapter(tmp_path / "nowhere").splits()
    with pytest.raises(DatasetError, match="no samples in split 'test'; found train, val"):
        adapter(root).samples("test")
    with pytest.raises(ConfigError, match="dataset.members.nir: no such modality"):
        adapter(root, members={"nir": "x.png"})


def test_altered_members_of_a_source_shard_are_reported_by_sample(
    root: Path, make_webdataset_config: Callable
) -> None:
    """The first shard is a link to its source, the second was exchanged: both count."""
    config = make_webdataset_config()
    before = prepared(config)
    (root / "train-000.tar").rename(root / "old.tar_")
    write_tar(root / "train-000.tar", {"t0": sample(0), "t1": sample(9), "t2": sample(2)})
    report = prepare(config, Workspace.of(config), progress=False)
    assert report.details["source"]["train"] == {
        "removed": 0,
        "altered": 1,
        "unknown": 0,
        "unreadable": 0,
    }
    assert "t1 in train-000000" in report.details["advice"][0]
    assert Manifest.load(before.folder).digest() == before.digest()
    write_tar(root / "train-001.tar", {"t3": sample(3, encode_array)})
    report = prepare(config, Workspace.of(config), progress=False)
    assert report.details["source"]["train"]["removed"] == 1
