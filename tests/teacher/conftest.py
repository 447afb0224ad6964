"""Golden tensors (made by running upstream's own code on random weights) and small local sources."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from pipeline.files import write_json
from teacher.hubconfig import read_config
from teacher.text import text_network
from teacher.vision import VisionNetwork, layout_of

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


def write_source(root: Path, seed: int = 0) -> Path:
    """A source with an image and a depth tower of random weights, text halves and tokenizers."""
    from tokenizers.pre_tokenizers import ByteLevel

    from teacher.tokenizer import BOS, EOS, clip_backend

    letters = sorted(ByteLevel.alphabet())
    words = [*letters, *(f"{letter}</w>" for letter in letters), BOS, EOS]
    backend = clip_backend({word: index for index, word in enumerate(words)}, [])
    for tower in ("Image", "Depth"):
        folder = root / f"LanguageBind_{tower}"
        folder.mkdir(parents=True)
        write_json(folder / "config.json", _hub_config(tower, len(words)))
        config = read_config(folder / "config.json")
        torch.manual_seed(seed)
        state = {**text_network(config).state_dict()}
        state |= VisionNetwork(layout_of(config, {}, "here")).state_dict()
        save_file(state, folder / "model.safetensors")
        backend.save(str(folder / "tokenizer.json"))
    return root


def _hub_config(tower: str, vocab_size: int) -> dict[str, object]:
    shape = {
        "hidden_size": 16,
        "intermediate_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "hidden_act": "gelu",
    }
    return {
        "model_type": f"LanguageBind{tower}",
        "projection_dim": 12,
        "text_config": {**shape, "vocab_size": vocab_size, "max_position_embeddings": 40},
        "vision_config": {**shape, "image_size": 32, "patch_size": 16, "lora_r": 0},
    }


@pytest.fixture(scope="session")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A local source of two random towers; tests must not change it."""
    return write_source(tmp_path_factory.mktemp("source") / "small-teacher")
