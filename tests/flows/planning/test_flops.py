"""The formula against PyTorch's own counter."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

import teacher
from flows.planning.flops import flops_per_image, num_tokens
from teacher.checkpoints.hub_config import parse_config
from tests.teacher.conftest import config, prepared, root, source

__all__ = ["config", "prepared", "root", "source"]


@pytest.mark.parametrize("patch", [False, True])
@pytest.mark.parametrize("name", ["source", "languagebind-tiny"])
def test_flops_equal_torchs_count(name: str, patch: bool, source: Path) -> None:
    tower = teacher.load_tower(str(source) if name == "source" else name, "depth")
    pixels = torch.zeros(3, 3, *tower.network.layout.input_px)
    # The fused attention kernel of the processor is unknown to the counter; the plain one is known.
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        tower.encode(pixels, patch=patch)
    found = counter.get_total_flops()
    assert found == 3 * flops_per_image(tower.files.config, patch=patch)
    assert num_tokens(tower.files.config) == tower.network.layout.grid[0] ** 2 + 1


def test_flops_of_a_full_size_tower() -> None:
    """ViT-L/14 at 224 px: 257 tokens and 162 billion operations."""
    vision = {
        "hidden_size": 1024,
        "intermediate_size": 4096,
        "num_hidden_layers": 24,
        "num_attention_heads": 16,
        "image_size": 224,
        "patch_size": 14,
    }
    raw = {"model_type": "LanguageBindDepth", "projection_dim": 768, "vision_config": vision}
    config = parse_config(raw, "test")
    assert num_tokens(config) == 257
    assert flops_per_image(config, patch=False) == pytest.approx(162.0e9, rel=1e-3)
    assert flops_per_image(config, patch=True) == pytest.approx(163.5e9, rel=1e-3)
