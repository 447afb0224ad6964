"""Several towers at once, with and without temperature."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import teacher
from pipeline.errors import ConfigError


def test_equals_the_goldens(shared: Path) -> None:
    root = shared / "languagebind"
    folders = json.loads((root / "container" / "info.json").read_text())["clip_type"]
    expected = load_file(root / "container" / "io.safetensors")
    container = teacher.load_container({name: str(root / f) for name, f in folders.items()})
    language = load_file(root / "language" / "io.safetensors")
    inputs = {
        name: load_file(root / folder / "io.safetensors")["pixel_values"]
        for name, folder in folders.items()
    }
    inputs["language"] = (language["input_ids"], language["attention_mask"])
    for prefix, use_temp in (("use_temp", True), ("no_temp", False)):
        found = container.encode(inputs, use_temp=use_temp)
        for name, embedding in found.items():
            scale = math.exp(container.towers[name].logit_scale) if name in folders else 1.0
            atol = 1e-5 * (scale if use_temp else 1.0)
            torch.testing.assert_close(embedding, expected[f"{prefix}.{name}"], atol=atol, rtol=0)


def test_temperature_scales_all_but_language(goldens: Path) -> None:
    io = load_file(goldens / "LanguageBind_Depth" / "io.safetensors")
    language = load_file(goldens / "language.safetensors")
    sources = {"video": str(goldens), "depth": str(goldens / "LanguageBind_Depth")}
    container = teacher.load_container(sources)
    inputs = {
        "depth": io["pixel_values"],
        "language": (language["input_ids"], language["attention_mask"]),
    }
    warm = container.encode(inputs)
    torch.testing.assert_close(warm["depth"], io["scaled"], atol=2e-4, rtol=0)
    torch.testing.assert_close(warm["language"], language["normalized"], atol=1e-5, rtol=0)
    cold = container.encode(inputs, use_temp=False)
    torch.testing.assert_close(cold["depth"], io["normalized"], atol=1e-5, rtol=0)


def test_a_name_that_is_not_loaded_is_refused(goldens: Path) -> None:
    container = teacher.load_container({"depth": str(goldens)})
    with pytest.raises(ConfigError, match=r"container input 'image': .* one of depth"):
        container.encode({"image": torch.zeros(1, 3, 48, 48)})
