"""Golden tensors (made by running upstream's own code on random weights) and small local sources."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from pipeline.config.config import Config
from pipeline.formats.weight_files import StateDict
from pipeline.shards.prepare import prepare
from pipeline.storage.files import write_json
from pipeline.workspace import Workspace
from teacher.checkpoints.hub_config import read_config
from teacher.checkpoints.read import read_checkpoint
from teacher.towers import text_tower, vision_tower
from teacher.towers.text_tower import text_network
from teacher.towers.vision_network import VisionNetwork, layout_of

GOLDENS = Path(__file__).parent / "goldens"


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> Iterator[None]:
    """Tiny tensors: more threads only cost, and change the last bits."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def goldens() -> Path:
    """The subset of the golden tensors that lives in this repository."""
    return GOLDENS


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder with the full set of golden tensors, beside the repository."""
    root = Path(os.environ.get("ANY2SEG_SHARED", Path(__file__).parents[2].parent / "shared"))
    if not (root / "fixtures" / "languagebind").is_dir():
        pytest.skip(f"no golden set at {root}/fixtures/languagebind (set ANY2SEG_SHARED)")
    return root / "fixtures"


@pytest.fixture
def depth_dir(tmp_path: Path) -> Path:
    """A writable copy of the depth tower (LoRA, text half)."""
    return shutil.copytree(GOLDENS / "LanguageBind_Depth", tmp_path / "LanguageBind_Depth")


@pytest.fixture
def weights_read(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The weight files that the towers have read so far, in order."""
    paths: list[Path] = []

    def record(folder: Path) -> tuple[StateDict, tuple[Path, ...]]:
        state, files = read_checkpoint(folder)
        paths.extend(files)
        return state, files

    for module in (text_tower, vision_tower):
        monkeypatch.setattr(module, "read_checkpoint", record)
    return paths


DIM, SECOND_DIM = 12, 8
"""Widths of the embeddings of `source` and of `second_source`."""


def write_source(root: Path, seed: int = 0, dim: int = DIM) -> Path:
    """A source with an image and a depth tower of random weights, text halves and tokenizers."""
    from tokenizers.pre_tokenizers import ByteLevel

    from teacher.checkpoints.tokenizer import BOS, EOS, clip_backend

    letters = sorted(ByteLevel.alphabet())
    words = [*letters, *(f"{letter}</w>" for letter in letters), BOS, EOS]
    backend = clip_backend({word: index for index, word in enumerate(words)}, []).backend_tokenizer
    for tower in ("Image", "Depth"):
        folder = root / f"LanguageBind_{tower}"
        folder.mkdir(parents=True)
        write_json(folder / "config.json", _hub_config(tower, len(words), dim))
        config = read_config(folder / "config.json")
        torch.manual_seed(seed)
        state = {**text_network(config).state_dict()}
        state |= VisionNetwork(layout_of(config, {}, "here")).state_dict()
        save_file(state, folder / "model.safetensors")
        backend.save(str(folder / "tokenizer.json"))
    return root


def _hub_config(tower: str, vocab_size: int, dim: int) -> dict[str, object]:
    shape = {
        "hidden_size": 16,
        "intermediate_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "hidden_act": "gelu",
    }
    return {
        "model_type": f"LanguageBind{tower}",
        "projection_dim": dim,
        "text_config": {**shape, "vocab_size": vocab_size, "max_position_embeddings": 40},
        "vision_config": {**shape, "image_size": 32, "patch_size": 16, "lora_r": 0},
    }


@pytest.fixture(scope="session")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A local source of two random towers; tests must not change it."""
    return write_source(tmp_path_factory.mktemp("source") / "small-teacher")


@pytest.fixture(scope="session")
def second_source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Another such source, of another width; tests must not change it."""
    root = tmp_path_factory.mktemp("second-source") / "dense-teacher"
    return write_source(root, seed=1, dim=SECOND_DIM)


NUM_TRAIN, SHARD_SIZE, BATCH = 10, 4, 3


def write_pictures(root: Path) -> None:
    """Two image modalities and metric depth; one sample lacks its depth, one its nir."""
    rng = np.random.default_rng([5])
    for split, count in (("train", NUM_TRAIN), ("val", 3)):
        for index in range(count):
            arrays = {
                "rgb": rng.integers(0, 256, (40, 50, 3), dtype=np.uint8),
                "nir": rng.integers(0, 256, (40, 50), dtype=np.uint8),
                "depth": rng.integers(0, 9000, (40, 50), dtype=np.uint16),
                "label": rng.integers(0, 3, (40, 50), dtype=np.uint8),
            }
            for name, array in arrays.items():
                if (split, index, name) in {("train", 2, "depth"), ("train", 5, "nir")}:
                    continue
                path = root / name / split / f"{index:03d}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(array).save(path)


def make_config(root: Path, source: Path, **changes: Any) -> Config:
    data: dict[str, Any] = {
        "name": "small",
        "workspace": str(root / "workspace"),
        "dataset": {
            "adapter": "folder",
            "root": str(root / "pictures"),
            "classes": ["road", "car", "tree"],
            "missing": "allow",
        },
        "modalities": {"rgb": {}, "nir": {}, "depth": {}},
        "store": {"shard_size": SHARD_SIZE},
        "prepare": {"workers": 1},
        "teacher": {
            "name": str(source),
            "batch_size": BATCH,
            "device": "cpu",
            "outputs": ["embedding", "patch"],
            **changes,
        },
    }
    return Config.model_validate(data)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory, source: Path) -> Path:
    """A folder with pictures and a prepared workspace, no targets."""
    root = tmp_path_factory.mktemp("prepared")
    write_pictures(root / "pictures")
    config = make_config(root, source)
    prepare(config, Workspace.of(config), progress=False)
    return root


@pytest.fixture
def root(prepared: Path, tmp_path: Path) -> Path:
    """A copy of the prepared workspace; the pictures stay where they are."""
    shutil.copytree(prepared / "workspace", tmp_path / "workspace")
    (tmp_path / "pictures").symlink_to(prepared / "pictures")
    return tmp_path


@pytest.fixture
def config(root: Path, prepared: Path, source: Path) -> Config:
    data = make_config(prepared, source).model_dump(mode="json", exclude_none=True)
    return Config.model_validate({**data, "workspace": str(root / "workspace")})
