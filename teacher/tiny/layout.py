"""The networks of languagebind-tiny and their files, in the layout of LanguageBind's releases.

`<out>/LanguageBind_Image/` and `<out>/LanguageBind_Depth/` each hold config.json, model.safetensors
(float16; upstream's tensor names; a copy of the shared text tower) and the tokenizer files, so that
`teacher.load_tower` reads them as it reads a release.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModelWithProjection

from pipeline.modalities import TowerName
from pipeline.storage.files import write_bytes, write_json
from teacher.tiny.tokenizer import CONTEXT_LENGTH, save_tokenizer
from teacher.towers.vision_network import VisionLayout, VisionNetwork

IMAGE_PX = 64
PATCH_PX = 8
GRID = IMAGE_PX // PATCH_PX
WIDTH = 128
VISION_LAYERS = 4
TEXT_LAYERS = 2
NUM_HEADS = 4
MAX_DEPTH_M = 80.0
LOGIT_SCALE_INIT = 2.6592
TEXT_CHUNK = 32

TOWERS: dict[TowerName, str] = {"image": "LanguageBind_Image", "depth": "LanguageBind_Depth"}


def vision_network() -> VisionNetwork:
    """A fresh vision tower with random weights, in training mode."""
    layout = VisionLayout(
        hidden_size=WIDTH,
        intermediate_size=4 * WIDTH,
        num_layers=VISION_LAYERS,
        num_heads=NUM_HEADS,
        patch_px=PATCH_PX,
        grid=(GRID, GRID),
        projection_dim=WIDTH,
    )
    return VisionNetwork(layout)


def text_network(vocab_size: int) -> CLIPTextModelWithProjection:
    """A fresh text tower with random weights."""
    return CLIPTextModelWithProjection(CLIPTextConfig(**_text_config(vocab_size)))


def hub_config(tower: TowerName, vocab_size: int) -> dict[str, Any]:
    """config.json of one tower, in the form of the hub's files."""
    vision = {
        "model_type": "clip_vision_model",
        "hidden_size": WIDTH,
        "intermediate_size": 4 * WIDTH,
        "num_hidden_layers": VISION_LAYERS,
        "num_attention_heads": NUM_HEADS,
        "image_size": IMAGE_PX,
        "patch_size": PATCH_PX,
        "num_channels": 3,
        "hidden_act": "gelu",
        "layer_norm_eps": 1e-5,
        "attention_dropout": 0.0,
        "projection_dim": WIDTH,
        "add_time_attn": False,
        "num_frames": 1,
        "lora_r": 0,
        "lora_alpha": 16,
        "lora_dropout": 0.0,
        "num_mel_bins": 0,
        "target_length": 0,
    }
    if tower == "depth":
        vision["max_depth"] = MAX_DEPTH_M
    return {
        "model_type": f"LanguageBind{tower.capitalize()}",
        "architectures": ["CLIPModel"],
        "projection_dim": WIDTH,
        "logit_scale_init_value": LOGIT_SCALE_INIT,
        "torch_dtype": "float16",
        "transformers_version": None,
        "text_config": {"model_type": "clip_text_model", **_text_config(vocab_size)},
        "vision_config": vision,
    }


def save_tower(
    out: Path,
    tower: TowerName,
    vision: nn.Module,
    text: CLIPTextModelWithProjection,
    tokenizer: Any,
) -> None:
    """Write one tower's directory under `out`, replacing its files."""
    from safetensors.torch import save

    directory = out / TOWERS[tower]
    directory.mkdir(parents=True, exist_ok=True)
    state = {**text.state_dict(), **vision.state_dict()}
    tensors = {name: value.detach().half().contiguous() for name, value in state.items()}
    tensors["text_model.embeddings.position_ids"] = torch.arange(CONTEXT_LENGTH)[None]
    tensors["vision_model.embeddings.position_ids"] = torch.arange(GRID * GRID + 1)[None]
    write_bytes(directory / "model.safetensors", save(tensors, metadata={"format": "pt"}))
    write_json(directory / "config.json", hub_config(tower, len(tokenizer)))
    save_tokenizer(tokenizer, directory)


def encode_texts(text: CLIPTextModelWithProjection, tokenizer: Any, texts: list[str]) -> Tensor:
    """Unit-norm embeddings of the strings, (N, D); strings of similar length share a batch."""
    rows = tokenizer(texts, truncation=True, max_length=CONTEXT_LENGTH)["input_ids"]
    order = sorted(range(len(rows)), key=lambda index: len(rows[index]))
    parts = []
    for start in range(0, len(order), TEXT_CHUNK):
        chunk = [rows[index] for index in order[start : start + TEXT_CHUNK]]
        longest, end = len(chunk[-1]), tokenizer.eos_token_id
        ids = torch.tensor([row + [end] * (longest - len(row)) for row in chunk])
        parts.append(text(input_ids=ids).text_embeds)
    inverse = torch.empty(len(order), dtype=torch.long)
    inverse[order] = torch.arange(len(order))
    return nn.functional.normalize(torch.cat(parts)[inverse], dim=-1)


def _text_config(vocab_size: int) -> dict[str, Any]:
    return {
        "vocab_size": vocab_size,
        "hidden_size": WIDTH,
        "intermediate_size": 4 * WIDTH,
        "num_hidden_layers": TEXT_LAYERS,
        "num_attention_heads": NUM_HEADS,
        "max_position_embeddings": CONTEXT_LENGTH,
        "hidden_act": "gelu",
        "layer_norm_eps": 1e-5,
        "attention_dropout": 0.0,
        "projection_dim": WIDTH,
        "bos_token_id": 0,
        "eos_token_id": 2,
        "pad_token_id": 1,
    }
