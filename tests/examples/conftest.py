"""Golden tensors of the modalities that the examples add."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> Iterator[None]:
    """Tiny tensors: more threads only cost, and change the last bits."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def goldens() -> Path:
    """The video and audio part of the golden tensors in this repository."""
    return ROOT / "tests/examples/goldens"


@pytest.fixture(scope="session")
def teacher_goldens() -> Path:
    """The image, depth, thermal and text part, and the pixel values of every modality."""
    return ROOT / "tests/teacher/goldens"


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder with the full set of golden tensors, beside the repository."""
    root = Path(os.environ.get("ANY2SEG_SHARED", ROOT.parent / "shared"))
    if not (root / "fixtures" / "languagebind").is_dir():
        pytest.skip(f"no golden set at {root}/fixtures/languagebind (set ANY2SEG_SHARED)")
    return root / "fixtures"


NORMALISED, POOLED, HIDDEN = 1e-5, 5e-5, 2e-4
"""Absolute tolerances of the golden set's own documentation."""


@pytest.fixture(scope="session")
def assert_output():
    """Compare a `TowerOutput` with the tensors of a golden io.safetensors."""

    def check(output, io, suffix="") -> None:
        for name, tensor, atol in (
            ("normalized", output.embedding, NORMALISED),
            ("pooler_output", output.pooled, POOLED),
            ("projected", output.projected, POOLED),
            ("last_hidden_state", output.last_hidden_state, HIDDEN),
        ):
            torch.testing.assert_close(tensor, io[name + suffix], atol=atol, rtol=0)

    return check
