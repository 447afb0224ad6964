"""Golden tensors (made by running upstream's own code on random weights) and small local sources."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

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
