"""What cannot work is refused before work: splits, batch sizes, sizes of images."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pipeline.config.config import Config
from pipeline.config.load import dump_config
from pipeline.errors import ConfigError, DatasetError
from pipeline.shards.manifest import Manifest
from pipeline.shards.prepare import prepare
from pipeline.workspace import Workspace
from student.evaluation.evaluate import evaluate
from student.runs.preflight import (
    MAX_SIZES,
    check_before_run,
    check_training,
    prepared_facts,
    source_facts,
    trial_shapes,
)
from student.training.train import train

MakeConfig = Callable[..., Config]
NO_TEACHER = {"backbone": "test_efficientnet", "weights": "none", "head_channels": 8,
              "lscd": {"inter": 0.0, "intra": 0.0}}  # fmt: skip


def write_tree(root: Path, sizes: dict[str, list[tuple[int, int]]], label: int = 1) -> Path:
    for split, shapes in sizes.items():
        for number, (height, width) in enumerate(shapes):
            for folder, array in (
                ("rgb", np.full((height, width, 3), number, np.uint8)),
                ("label", np.full((height, width), label, np.uint8)),
            ):
                path = root / folder / split / f"{number}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(array).save(path)
    return root


@pytest.fixture
def make_run(tmp_path: Path, make_config: MakeConfig) -> MakeConfig:
    def make(sizes: dict[str, list[tuple[int, int]]], label: int = 1, **tables: Any) -> Config:
        root = write_tree(tmp_path / "tree", sizes, label)
        dataset = {"adapter": "folder", "root": str(root), "classes": ["a", "b"]}
        given = {"student": NO_TEACHER, "train": {"steps": 1, "batch_size": 2, "device": "cpu"}}
        tables = {"dataset": dataset, "modalities": {"rgb": {}}, **given, **tables}
        return make_config(tmp_path / "workspace", **tables)

    return make


def prepared(config: Config) -> Manifest:
    prepare(config, Workspace.of(config), progress=False)
    return Manifest.load(Workspace.of(config).dataset(config))


def test_a_split_that_is_not_there_is_named_before_and_after_prepare(make_run: MakeConfig) -> None:
    config = make_run({"train": [(32, 32)] * 2})
    text = r"no split 'val'; splits with samples: train.*evaluate\.split"
    with pytest.raises(DatasetError, match=text):
        check_before_run(config, Workspace.of(config))
    assert not Workspace.of(config).root.exists()
    prepared(config)
    for stage in (train, check_before_run):
        with pytest.raises(DatasetError, match=text):
            stage(config, Workspace.of(config))
    assert not Workspace.of(config).runs.exists()


def test_a_split_that_came_since_is_seen(make_run: MakeConfig) -> None:
    config = make_run({"train": [(32, 32)] * 2})
    prepared(config)
    write_tree(config.dataset.root, {"val": [(32, 32)]})  # type: ignore[attr-defined]
    check_before_run(config, Workspace.of(config))


def test_no_training_split(make_run: MakeConfig) -> None:
    config = make_run({"val": [(32, 32)]})
    with pytest.raises(DatasetError, match="no split 'train'; splits with samples: val"):
        check_before_run(config, Workspace.of(config))


def test_nothing_labelled_to_score(make_run: MakeConfig) -> None:
    config = make_run({"train": [(32, 32)] * 2, "val": [(32, 32)]}, label=255)
    with pytest.raises(DatasetError, match="'val' has no labelled pixel to score"):
        check_training(config, prepared(config))


def test_a_batch_that_does_not_divide(make_run: MakeConfig) -> None:
    config = make_run(
        {"train": [(32, 32)] * 2, "val": [(32, 32)]},
        train={"batch_size": 3, "accumulate": 2, "device": "cpu"},
    )
    with pytest.raises(ConfigError, match=r"train\.batch_size = 3: expected a multiple of 2"):
        check_before_run(config, Workspace.of(config))


def test_a_row_of_the_comparison_is_checked_too(make_run: MakeConfig) -> None:
    config = make_run(
        {"train": [(32, 32)] * 2, "val": [(32, 32)]},
        compare={"swin": ["student.backbone=swinv2_cr_tiny_ns_224"]},
    )
    with pytest.raises(ConfigError, match="swinv2_cr_tiny_ns_224.*dataset.size_px = .224, 224."):
        check_before_run(config, Workspace.of(config))
    assert not Workspace.of(config).root.exists()


@pytest.mark.parametrize(
    ("tables", "train_sizes", "scored", "num_images"),
    [
        ({}, {(32, 40), (96, 64)}, {(48, 48)}, 2),
        ({"crop_px": 64}, {(64, 64)}, {(48, 48)}, 2),
        ({"scale": [0.5, 2.0]}, {(16, 20), (48, 32), (64, 80), (192, 128)}, {(48, 48)}, 2),
        ({"accumulate": 2}, {(32, 40), (96, 64)}, {(48, 48)}, 1),
        ({"processes": 2}, {(32, 40), (96, 64)}, {(48, 48)}, 1),
    ],
)
def test_sizes_that_a_student_meets(
    make_run: MakeConfig,
    tables: dict[str, Any],
    train_sizes: set[tuple[int, int]],
    scored: set[tuple[int, int]],
    num_images: int,
) -> None:
    config = make_run(
        {"train": [(32, 40), (96, 64)], "val": [(48, 48)]},
        train={"batch_size": 2, "device": "cpu", **tables},
        evaluate={"window_px": 50},
    )
    for facts in (source_facts(config), prepared_facts(config, prepared(config))):
        assert facts is not None
        shapes = trial_shapes(config, facts)
        assert (shapes.train, shapes.scored) == (train_sizes, scored)
        assert shapes.num_images == num_images


def test_few_of_many_sizes_are_tried(make_run: MakeConfig) -> None:
    sizes = [(32 + n, 32) for n in range(20)]
    config = make_run({"train": sizes, "val": [(32, 32)]})
    tried = trial_shapes(config, prepared_facts(config, prepared(config))).train
    assert len(tried) == MAX_SIZES
    assert {(32, 32), (51, 32)} <= tried


def test_a_sample_with_one_sensor_makes_the_smallest_batch(make_run: MakeConfig) -> None:
    config = make_run({"train": [(32, 32)] * 3, "val": [(32, 32)]})
    root = config.dataset.root  # type: ignore[attr-defined]
    for number in (0, 1):
        path = root / "thermal/train" / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.zeros((32, 32), np.uint8)).save(path)
    dataset = config.dataset.model_copy(update={"missing": "allow"})
    two = config.model_copy(update={"dataset": dataset})
    both = Config.model_validate(
        two.model_dump() | {"modalities": {"rgb": {}, "thermal": {"kind": "gray"}}}
    )
    assert prepared_facts(both, prepared(both)).min_present == 1
    listed = source_facts(both)
    assert listed is not None
    assert listed.min_present == 1


def test_a_source_that_cannot_be_listed_is_left_to_prepare(make_run: MakeConfig) -> None:
    config = make_run({"train": [(32, 32)] * 2, "val": [(32, 32)]})
    dataset = config.dataset.model_copy(update={"root": Path("/nowhere")})
    lost = config.model_copy(update={"dataset": dataset})
    assert source_facts(lost) is None
    check_before_run(lost, Workspace.of(lost))


def test_evaluate_names_the_split_before_it_loads_a_student(make_run: MakeConfig) -> None:
    config = make_run({"train": [(32, 32)] * 2, "val": [(32, 32)]})
    prepared(config)
    train(config, Workspace.of(config), progress=False)
    scored = config.evaluate.model_copy(update={"split": "test"})
    with pytest.raises(DatasetError, match="no split 'test'; splits with samples: train, val"):
        evaluate(config.model_copy(update={"evaluate": scored}), Workspace.of(config))


def test_the_command_refuses_before_the_first_byte(make_run: MakeConfig, tmp_path: Path) -> None:
    config = make_run({"train": [(32, 32)] * 2})
    path = tmp_path / "c.toml"
    path.write_text(dump_config(config), encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-m", "flows.cli", "run", str(path)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert "no split 'val'" in done.stderr
    assert "Traceback" not in done.stderr
    assert not Workspace.of(config).root.exists()
