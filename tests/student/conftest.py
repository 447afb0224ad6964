"""A prepared workspace with random unit-norm targets, as a student finds it when a teacher has
been there."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from pipeline.config.config import Config
from pipeline.config.student import StudentConfig
from pipeline.modalities import KINDS
from pipeline.shards.manifest import Manifest
from pipeline.shards.prepare import prepare
from pipeline.targets.lookup import point_to_store
from pipeline.targets.prompts import PromptStore, point_to_prompts
from pipeline.targets.provenance import TargetProvenance
from pipeline.targets.store import TargetStore
from pipeline.targets.views import VIEW_BOX, ViewConfig, draw_boxes, view_identity, view_shapes
from pipeline.workspace import Workspace
from student.data.train_stream import Batch
from student.model.student import Student

DIM = 16
PATCHES = 4
SCENES = 12
SIZE_PX = 64


def build_config(folder: Path, **tables: Any) -> Config:
    """A run of a few steps on rendered scenes of 64 px; keyword arguments replace whole fields."""
    data: dict[str, Any] = {
        "name": "tiny",
        "workspace": str(folder),
        "dataset": {
            "adapter": "synthetic",
            "num_train": SCENES,
            "num_val": 6,
            "num_test": 2,
            "size_px": SIZE_PX,
        },
        "modalities": {"rgb": {}, "depth": {}, "event": {}, "lidar": {}},
        "store": {"shard_size": 4},
        "prepare": {"workers": 1},
        "teacher": {"outputs": ["embedding", "patch"]},
        "student": {
            "backbone": "test_efficientnet",
            "weights": "none",
            "head_channels": 8,
            "lscd": {"inter": 0.05, "intra": 0.1, "dense": 0.05},
        },
        "train": {
            "steps": 6,
            "batch_size": 3,
            "warmup_steps": 2,
            "checkpoint_every": 2,
            "threads": 1,
            "device": "cpu",
        },
        "evaluate": {"batch_size": 4, "num_pictures": 3},
    }
    return Config.model_validate(data | tables)


def unit_rows(rng: np.random.Generator, *shape: int) -> np.ndarray:
    """Random vectors of length 1 along the last axis."""
    rows = rng.standard_normal(shape)
    return (rows / np.linalg.norm(rows, axis=-1, keepdims=True)).astype(np.float32)


def write_targets(config: Config, workspace: Workspace) -> None:
    """Random targets for every shard and modality, and random prompts, through the real stores."""
    manifest = Manifest.load(workspace.dataset(config))
    rng = np.random.default_rng(0)
    views = ViewConfig.of(config)
    rows = view_shapes({"embedding": (DIM,), "patch": (PATCHES, DIM)}, views)
    outputs = (*config.teacher.outputs, *([VIEW_BOX] if views else []))
    for name, spec in config.specs().items():
        store = TargetStore.create(
            workspace.targets(config),
            TargetProvenance(
                modality=name,
                teacher="random",
                spec=spec.identity(),
                tower={"weights": "random"} | view_identity(views),
                outputs={output: rows[output] for output in outputs},
                shard_size=config.store.shard_size,
            ),
        )
        for shard in manifest.all_shards:
            arrays = {o: unit_rows(rng, shard.num_rows, *rows[o]) for o in config.teacher.outputs}
            if views:
                boxes = [draw_boxes(key, SIZE_PX, SIZE_PX, views) for key in shard.keys]
                arrays[VIEW_BOX] = np.stack(boxes)
            for array in arrays.values():
                array[~np.array(shard.present[name])] = np.nan
            store.commit(shard, arrays, {})
        point_to_store(config, workspace, store)
    prompts = unit_rows(rng, len(manifest.classes), 2, DIM)
    identity = {"text": "random", "classes": list(manifest.classes)}
    found = PromptStore.create(workspace.prompts, "random", identity, prompts[:, 0], prompts)
    point_to_prompts(config, workspace, found)


def fill_workspace(config: Config) -> Workspace:
    """Prepare the config's dataset and fill its target stores."""
    workspace = Workspace.of(config)
    prepare(config, workspace, progress=False)
    write_targets(config, workspace)
    return workspace


@pytest.fixture(scope="session")
def make_config() -> Callable[..., Config]:
    """See `build_config`."""
    return build_config


@pytest.fixture(scope="session")
def make_workspace() -> Callable[[Config], Workspace]:
    """See `fill_workspace`."""
    return fill_workspace


@pytest.fixture(scope="session")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A prepared workspace without runs; tests that train copy it."""
    folder = tmp_path_factory.mktemp("scenes")
    fill_workspace(build_config(folder))
    return folder


@pytest.fixture
def fresh(scenes: Path, tmp_path: Path) -> Path:
    """A copy of the prepared workspace that the test may write to."""
    folder = tmp_path / "workspace"
    shutil.copytree(scenes, folder)
    return folder


TWO_SENSORS = {"rgb": KINDS["rgb"], "nir": KINDS["nir"]}


class NamedSample:
    """All that scoring asks of a sample that is decoded already."""

    def __init__(self, key: str) -> None:
        self.key, self.condition, self.corner_case = key, "", ""


@pytest.fixture(scope="session")
def two_sensor_batch() -> Batch:
    """Three samples `a`, `b`, `c` of 64 x 32 px; `b` has no nir, `c` no rgb."""
    generator = torch.Generator().manual_seed(0)
    inputs = {
        n: torch.rand(3, s.channels, 64, 32, generator=generator) for n, s in TWO_SENSORS.items()
    }
    return Batch(
        index=0,
        refs=tuple(NamedSample(key) for key in "abc"),
        inputs=inputs,
        present=torch.tensor([[True, True], [True, False], [False, True]]),
        label=torch.randint(0, 4, (3, 64, 32), generator=generator),
        view=torch.zeros(3, 5),
        targets={},
        has_target=torch.zeros(3, 2, dtype=torch.bool),
    )


def two_sensor_model(**student: Any) -> Student:
    """A student of rgb and nir with random weights and four classes."""
    torch.manual_seed(0)
    fields = {"backbone": "test_efficientnet", "weights": "none", "head_channels": 8}
    return Student(StudentConfig.model_validate(fields | student), TWO_SENSORS, 4).eval()


@pytest.fixture(scope="session")
def two_sensor_student() -> Student:
    """That student with MFF."""
    return two_sensor_model()


FIELD_CLASSES = ("ground", "crop", "weed", "stone")


def write_field(root: Path, size: tuple[int, int] = (40, 56)) -> None:
    """Pictures of 40 x 56 px: colour, 16-bit near infra-red given in percent, and labels."""
    rng = np.random.default_rng(3)
    for split, number in (("train", 4), ("val", 2)):
        for name in ("rgb", "nir", "label"):
            (root / name / split).mkdir(parents=True)
        for index in range(number):
            stem = f"{split}/{index}.png"
            Image.fromarray(rng.integers(0, 256, (*size, 3), np.uint8)).save(root / "rgb" / stem)
            Image.fromarray(rng.integers(0, 101, size, np.uint8)).save(root / "nir" / stem)
            Image.fromarray(rng.integers(0, 4, size, np.uint8)).save(root / "label" / stem)


@pytest.fixture(scope="session")
def trained_field(tmp_path_factory: pytest.TempPathFactory) -> tuple[Config, Path, Path]:
    """A student of two sensors and four classes, trained for two steps; its run folder; the tree."""
    from student.evaluation.evaluate import evaluate
    from student.runs.inputs import identify
    from student.training.train import train

    folder = tmp_path_factory.mktemp("segmenter")
    write_field(folder / "tree")
    config = Config.model_validate(
        {
            "name": "field",
            "workspace": str(folder / "workspace"),
            "dataset": {
                "adapter": "folder",
                "root": str(folder / "tree"),
                "classes": FIELD_CLASSES,
                "sources": {"nir": {"bits": 8, "scale": 655.35}},
            },
            "modalities": {"rgb": {}, "nir": {"kind": "nir16"}},
            "prepare": {"workers": 1},
            "student": {
                "backbone": "test_efficientnet",
                "weights": "none",
                "head_channels": 8,
                "lscd": {"inter": 0.0, "intra": 0.0},
            },
            "train": {
                "steps": 2,
                "batch_size": 2,
                "warmup_steps": 1,
                "device": "cpu",
                "threads": 1,
            },
        }
    )
    workspace = Workspace.of(config)
    prepare(config, workspace, progress=False)
    train(config, workspace, progress=False)
    evaluate(config, workspace, progress=False)
    return config, identify(config, workspace).folder, folder / "tree"


@pytest.fixture(scope="session")
def field_tree(trained_field: tuple[Config, Path, Path]) -> Path:
    """The folders that the student of `trained_field` learned from."""
    return trained_field[2]


@pytest.fixture(scope="session")
def saved_student(
    trained_field: tuple[Config, Path, Path], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """That student, saved to a folder."""
    from student.inference.segmenter import Segmenter

    folder = tmp_path_factory.mktemp("saved") / "field"
    Segmenter.from_run(trained_field[1]).save_pretrained(folder)
    return folder
