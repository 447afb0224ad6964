"""Several towers at once, with and without temperature."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import teacher
from examples.languagebind_audio import load_audio_network
from examples.languagebind_container import embed_together
from examples.languagebind_video import load_video_network
from teacher.towers.vision_network import VisionNetwork


def load(folder: Path, modality: str) -> VisionNetwork:
    if modality == "video":
        return load_video_network(folder)
    if modality == "audio":
        return load_audio_network(folder)[0]
    return teacher.load_tower(str(folder), modality).network


def test_equals_the_goldens(shared: Path) -> None:
    root = shared / "languagebind"
    folders = json.loads((root / "container" / "info.json").read_text())["clip_type"]
    expected = load_file(root / "container" / "io.safetensors")
    networks = {name: load(root / folder, name) for name, folder in folders.items()}
    text = teacher.load_text_tower(str(root / "image"))
    language = load_file(root / "language" / "io.safetensors")
    ids = (language["input_ids"], language["attention_mask"])
    pixels = {
        name: load_file(root / folder / "io.safetensors")["pixel_values"]
        for name, folder in folders.items()
    }
    for prefix, use_temp in (("use_temp", True), ("no_temp", False)):
        embeddings = embed_together(networks, pixels, text, ids, use_temp=use_temp)
        for name, embedding in embeddings.items():
            scale = float(networks[name].logit_scale.exp()) if name in folders else 1.0
            atol = 1e-5 * (scale if use_temp else 1.0)
            torch.testing.assert_close(embedding, expected[f"{prefix}.{name}"], atol=atol, rtol=0)


def test_temperature_scales_all_but_language(teacher_goldens: Path) -> None:
    io = load_file(teacher_goldens / "LanguageBind_Depth" / "io.safetensors")
    language = load_file(teacher_goldens / "language.safetensors")
    networks = {"depth": load(teacher_goldens, "depth")}
    text = teacher.load_text_tower(str(teacher_goldens))
    ids = (language["input_ids"], language["attention_mask"])
    pixels = {"depth": io["pixel_values"]}
    warm = embed_together(networks, pixels, text, ids)
    torch.testing.assert_close(warm["depth"], io["scaled"], atol=2e-4, rtol=0)
    torch.testing.assert_close(warm["language"], language["normalized"], atol=1e-5, rtol=0)
    cold = embed_together(networks, pixels, text, ids, use_temp=False)
    torch.testing.assert_close(cold["depth"], io["normalized"], atol=1e-5, rtol=0)


def test_a_modality_without_a_network_is_refused(teacher_goldens: Path) -> None:
    text = teacher.load_text_tower(str(teacher_goldens))
    ids = text.encode_ids, None
    with pytest.raises(KeyError, match="image"):
        embed_together({}, {"image": torch.zeros(1, 3, 48, 48)}, text, ids)
