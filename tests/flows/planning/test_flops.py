"""The formula against PyTorch's own counter."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from flows.planning.flops import flops_per_image, num_tokens
from teacher.contract import VitShape
from teacher.open import open_teacher
from tests.teacher.conftest import config, prepared, root, source

__all__ = ["config", "prepared", "root", "source"]


@dataclass(frozen=True)
class Shaped:
    """A tower that states nothing but a shape."""

    shape: VitShape | None = None


@pytest.mark.parametrize("patch", [False, True])
@pytest.mark.parametrize("name", ["source", "languagebind-tiny"])
def test_the_formula_is_what_torch_counts(name: str, patch: bool, source: Path) -> None:
    tower = open_teacher(str(source) if name == "source" else name).tower("depth")
    loaded = tower.load("float32", "cpu")
    pixels = torch.zeros(3, 3, *tower.input_px)
    # The fused attention kernel of the processor is unknown to the counter; the plain one is known.
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        loaded.encode(pixels, patch=patch)
    assert counter.get_total_flops() == 3 * flops_per_image(tower, patch=patch)
    assert num_tokens(tower) == tower.output_shapes()["patch"][0] + 1


def test_flops_of_a_full_size_tower() -> None:
    """ViT-L/14 at 224 px: 257 tokens and 162 billion operations."""
    tower = Shaped(VitShape(1024, 4096, 24, 14, (16, 16), projection_dim=768))
    assert num_tokens(tower) == 257
    assert flops_per_image(tower, patch=False) == pytest.approx(162.0e9, rel=1e-3)
    assert flops_per_image(tower, patch=True) == pytest.approx(163.5e9, rel=1e-3)


def test_a_tower_without_a_shape_is_of_unknown_cost() -> None:
    assert num_tokens(Shaped()) is None
    assert flops_per_image(Shaped(), patch=True) is None
