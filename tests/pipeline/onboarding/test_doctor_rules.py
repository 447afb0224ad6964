"""The doctor's judgement of values: units, kinds, ranges and labels that cannot be right."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipeline.config.config import Config
from pipeline.config.load import load_config
from pipeline.onboarding.doctor import Diagnosis, examine
from pipeline.onboarding.doctor_rules import notes, problems
from tests.support.deliver_layout import write_deliver

MakeConfig = Callable[..., Config]


def diagnose(config: Config) -> Diagnosis:
    return examine(config, progress=False)


@pytest.fixture
def root(make_source: Callable[..., Path]) -> Path:
    return make_source(train=6, val=3)


def test_metres_instead_of_millimetres_are_a_problem(root: Path, make_config: MakeConfig) -> None:
    for path in (root / "depth").rglob("*.png"):
        Image.fromarray(np.asarray(Image.open(path)) % 80).save(path)
    (problem,) = problems(diagnose(make_config()))
    assert "expected millimetres, these look like metres" in problem.what
    assert 'dataset.sources.depth.unit = "m"' in problem.fix
    assert problems(diagnose(make_config('dataset.sources.depth={unit = "m"}'))) == []


def test_holes_alone_ignored_labels_and_dark_ranges(root: Path, make_config: MakeConfig) -> None:
    for path in (root / "depth").rglob("*.png"):
        Image.fromarray(np.zeros((12, 10), np.uint16)).save(path)
    for path in (root / "label").rglob("*.png"):
        Image.fromarray(np.full((12, 10), 255, np.uint8)).save(path)
    for path in (root / "rgb").rglob("*.png"):
        Image.fromarray(np.asarray(Image.open(path)) // 20).save(path)
    diagnosis = diagnose(make_config())
    messages = [problem.what for problem in problems(diagnosis)]
    assert messages[0].startswith("depth: every pixel")
    assert messages[1].startswith("labels: every pixel")
    assert any("no value is above 12 of 255" in note for note in notes(diagnosis))


def test_colour_files_for_a_distance_point_to_hha(root: Path, make_config: MakeConfig) -> None:
    for path in (root / "depth").rglob("*.png"):
        Image.open(root / "rgb" / path.relative_to(root / "depth")).save(path)
    (problem,) = problems(diagnose(make_config()))
    assert "9 of the 9 samples read are refused" in problem.what
    assert 'modalities.depth.kind = "hha"' in problem.fix
    assert problems(diagnose(make_config("modalities.depth.kind=hha"))) != [problem]


def test_saturated_ranges_and_unseen_classes_are_notes(root: Path, make_config: MakeConfig) -> None:
    config = make_config(
        "modalities.depth.max_value=20000", 'dataset.classes=["soil", "crop", "weed", "tree"]'
    )
    diagnosis = diagnose(config)
    assert problems(diagnosis) == []
    messages = notes(diagnosis)
    assert any("at or above max_value = 20000" in note for note in messages)
    assert "in no label of the 9 samples read: tree" in messages


def test_raw_depth_instead_of_hha_is_a_problem(tmp_path: Path) -> None:
    root = tmp_path / "DELIVER"
    write_deliver(root, 0, {"train": 4}, size_px=64)
    (root / "hha").rename(root / "kept")
    (root / "depth").rename(root / "hha")
    path = tmp_path / "deliver.toml"
    path.write_text(
        'name = "d"\ndataset = { adapter = "deliver", root = "./DELIVER" }\n'
        'modalities = { depth = { kind = "hha" } }\n'
    )
    (problem,) = problems(diagnose(load_config(path)))
    assert "expected HHA, found what looks like raw depth" in problem.what


@pytest.mark.usefixtures("root")
def test_the_toy_as_teacher_of_real_images_is_a_note_not_a_problem(make_config: MakeConfig) -> None:
    diagnosis = diagnose(make_config())
    assert problems(diagnosis) == []
    assert sum("rendered street scenes" in note for note in notes(diagnosis)) == 1
    other = diagnose(make_config("teacher.name=LanguageBind"))
    assert not any("rendered street scenes" in note for note in notes(other))
