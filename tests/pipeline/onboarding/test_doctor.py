"""The doctor on good and damaged trees: what it lists, reads, draws and advises."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipeline.config.config import Config
from pipeline.config.load import load_config
from pipeline.onboarding.doctor import Diagnosis, examine, image_files, looks_packed, pick
from pipeline.onboarding.doctor_rules import notes, problems
from pipeline.onboarding.doctor_text import lines
from tests.support.deliver_layout import write_deliver

MakeConfig = Callable[..., Config]


def diagnose(config: Config, **settings: int | None) -> Diagnosis:
    return examine(config, progress=False, **settings)  # type: ignore[arg-type]


def text(diagnosis: Diagnosis) -> str:
    return "\n".join(lines(diagnosis))


@pytest.fixture
def root(make_source: Callable[..., Path]) -> Path:
    return make_source(train=6, val=3)


def test_a_complete_dataset_folder_is_ready(root: Path, make_config: MakeConfig) -> None:
    diagnosis = diagnose(make_config())
    assert problems(diagnosis) == []
    assert diagnosis.num_samples == len(diagnosis.decoded) == 9
    assert diagnosis.statistics is not None
    assert diagnosis.statistics.num_samples == 9
    assert text(diagnosis).endswith("\nready")
    assert {str(form): n for form, n in diagnosis.forms("depth").items()} == {
        "16-bit grey 10 x 12": 9
    }
    for words in ("train", "8-bit RGB 10 x 12 (9)", "Read all 9 samples", "per thousand samples"):
        assert words in text(diagnosis)
    assert (diagnosis.decoding_s_per_thousand > 0) == (diagnosis.seconds > 0)


def test_files_that_belong_to_no_sample_and_samples_that_lack_files(
    root: Path, make_config: MakeConfig
) -> None:
    (root / "depth/train/003.png").unlink()
    (root / "label/val/001.png").unlink()
    extra = root / "rgb/train/deeper/x.png"
    extra.parent.mkdir()
    Image.new("L", (4, 4)).save(extra)
    (root / "notes").mkdir()
    Image.new("L", (4, 4)).save(root / "notes/y.png")
    diagnosis = diagnose(make_config())
    assert [s.key for s in diagnosis.without("depth")] == ["train_003"]
    assert [s.key for s in diagnosis.without("label")] == ["val_001"]
    assert diagnosis.unmatched == {"rgb": [extra], "notes/": [root / "notes/y.png"]}
    first, second = map(str, problems(diagnosis))
    assert first.startswith("1 of 9 samples have no label (first: val_001)")
    assert second.startswith("1 of 9 samples have no depth (first: train_003)")
    assert 'dataset.missing = "allow"' in second
    lenient = diagnose(make_config("dataset.missing=allow"))
    assert len(problems(lenient)) == 1
    assert any("modalities vary" in note for note in notes(lenient))


def test_bad_files_are_refused_by_reason(root: Path, make_config: MakeConfig) -> None:
    for name in ("000", "001"):
        label = np.asarray(Image.open(root / f"label/train/{name}.png")).copy()
        label[0, 0] = 7
        Image.fromarray(label).save(root / f"label/train/{name}.png")
    (root / "rgb/val/002.png").write_bytes(b"")
    diagnosis = diagnose(make_config())
    assert [(r.count, r.key) for r in diagnosis.refusals] == [(2, "train_000"), (1, "val_002")]
    ids, empty = map(str, problems(diagnosis))
    assert "label: label id 7 is out of range" in ids
    assert "rgb: expected an image, found an empty file" in empty
    assert "2 x label: label id 7" in text(diagnosis)
    assert "unreadable (1)" in text(diagnosis)
    assert text(diagnosis).splitlines()[-3] == "Fix first:"


def test_limited_samples_are_drawn_from_the_seed(root: Path, make_config: MakeConfig) -> None:
    config = make_config()
    keys = [[r.sample.key for r in diagnose(config, limit=4, seed=s).decoded] for s in (0, 0, 1)]
    assert keys[0] == keys[1] != keys[2]
    assert len(keys[0]) == 4
    assert keys[0] == sorted(keys[0])
    assert "Read 4 of 9 samples" in text(diagnose(config, limit=4))
    assert len(diagnose(config, limit=None).decoded) == 9
    assert pick([], 4, 0) == []


def test_a_source_that_cannot_be_listed_is_a_problem(tmp_path: Path, make_config) -> None:
    (problem,) = problems(diagnose(make_config()))
    assert "no such folder" in problem.what
    assert text(diagnose(make_config())).endswith("Use --set dataset.root=FOLDER.")


def test_links_are_followed_once(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    Image.new("L", (4, 4)).save(tmp_path / "a/x.png")
    (tmp_path / "a/loop").symlink_to(tmp_path)
    (tmp_path / "b").symlink_to(tmp_path / "a")
    (tmp_path / "a/.hidden.png").write_bytes(b"")
    (tmp_path / "a/notes.txt").write_text("")
    assert list(image_files(tmp_path)) == [tmp_path / "a/x.png"]


def deliver_config(tmp_path: Path, modalities: str) -> Config:
    path = tmp_path / "deliver.toml"
    path.write_text(
        f'name = "d"\ndataset = {{ adapter = "deliver", root = "./DELIVER" }}\n'
        f"modalities = {{ {modalities} }}\nprepare = {{ workers = 1 }}\n"
    )
    return load_config(path)


def test_deliver_counts_conditions_and_corner_cases(tmp_path: Path) -> None:
    write_deliver(tmp_path / "DELIVER", 0, {"train": 12, "val": 3}, size_px=48)
    hha = deliver_config(tmp_path, 'rgb = {}, depth = { kind = "hha" }')
    diagnosis = diagnose(hha)
    assert problems(diagnosis) == []
    assert diagnosis.published["train"] == 3983
    assert any("train: 12 samples found, 3983 published" in note for note in notes(diagnosis))
    head = text(diagnosis).split("Files")[0]
    conditions = {s.condition for listed in diagnosis.listing.values() for s in listed}
    cases = {s.corner_case for listed in diagnosis.listing.values() for s in listed} - {""}
    assert cases
    for word in (*conditions, *cases, "3983"):
        assert word in head
    assert {name for name in diagnosis.unmatched if name.endswith("/")} == {
        "depth/",
        "event/",
        "lidar/",
    }
    assert problems(diagnose(deliver_config(tmp_path, "rgb = {}, depth = {}"))) == []


def test_a_smooth_image_is_not_taken_for_packed_values() -> None:
    ramp = np.repeat(np.linspace(0, 255, 64)[None, :, None], 3, axis=2).astype(np.uint8)
    assert not looks_packed(np.repeat(ramp, 8, axis=0))
    code = (np.linspace(1, 90, 64)[None] * 16777).astype(np.uint32).repeat(8, axis=0)
    packed = np.stack([code >> shift & 255 for shift in (0, 8, 16)], axis=-1).astype(np.uint8)
    assert looks_packed(packed)


def test_rendered_data_has_no_files_to_miss(tmp_path: Path) -> None:
    path = tmp_path / "s.toml"
    path.write_text(
        'name = "s"\ndataset = { adapter = "synthetic", num_train = 2, num_val = 1, num_test = 0, '
        "size_px = 48 }\nmodalities = { rgb = {}, depth = {} }\n"
    )
    diagnosis = diagnose(load_config(path))
    assert problems(diagnosis) == []
    assert diagnosis.unmatched == {}
