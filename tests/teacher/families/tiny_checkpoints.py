"""Random checkpoints of a few layers in each library's own on-disk form."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import transformers
from tokenizers.pre_tokenizers import ByteLevel

from teacher.checkpoints.tokenizer import BOS, EOS, clip_backend

SHAPE = {
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
}
SIZE_PX, PATCH_PX = 32, 8


def spread(model: Any, seed: int = 0) -> Any:
    """Weights of a scale at which every part of the model matters."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            noise = torch.empty_like(parameter).normal_(0, 0.3, generator=generator)
            parameter.copy_(parameter + noise)
    return model.eval()


def write_clip(folder: Path, **size: Any) -> transformers.CLIPModel:
    """CLIP with a byte tokenizer."""
    letters = sorted(ByteLevel.alphabet())
    words = [*letters, *(f"{letter}</w>" for letter in letters), BOS, EOS]
    clip_backend({word: i for i, word in enumerate(words)}, []).save_pretrained(folder)
    last = len(words) - 1
    ids = {"bos_token_id": last - 1, "eos_token_id": last, "pad_token_id": last}
    config = transformers.CLIPConfig(
        text_config={**SHAPE, "vocab_size": len(words), "max_position_embeddings": 40, **ids},
        vision_config={**SHAPE, "image_size": SIZE_PX, "patch_size": PATCH_PX},
        projection_dim=12,
    )
    model = spread(transformers.CLIPModel(config))
    model.save_pretrained(folder)
    settings = {"size": {"shortest_edge": SIZE_PX}, "crop_size": square(SIZE_PX), **size}
    transformers.CLIPImageProcessor(**settings).save_pretrained(folder)
    return model


def write_siglip(folder: Path, **changes: Any) -> transformers.SiglipModel:
    """Fixed-resolution SigLIP 2: a SigLIP network with a lower-casing tokenizer."""
    letters = [chr(code) for code in range(ord("a"), ord("z") + 1)]
    words = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>", "▁", ".", *letters]
    vocab = {word: index for index, word in enumerate(words)}
    transformers.Siglip2Tokenizer(vocab=vocab).save_pretrained(folder)
    ids = {"bos_token_id": 2, "eos_token_id": 1, "pad_token_id": 0}
    config = transformers.SiglipConfig(
        text_config={**SHAPE, "vocab_size": len(words), "max_position_embeddings": 24, **ids},
        vision_config={**SHAPE, "image_size": SIZE_PX, "patch_size": PATCH_PX, **changes},
    )
    model = spread(transformers.SiglipModel(config))
    model.save_pretrained(folder)
    transformers.SiglipImageProcessor(size=square(SIZE_PX)).save_pretrained(folder)
    return model


def write_dino(folder: Path, model_type: str = "dinov2", **changes: Any) -> Any:
    """DINOv2, DINOv2 with registers or DINOv3; DINOv2's processor resizes to 40 and crops 32."""
    common = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
    if model_type == "dinov3_vit":
        own: dict[str, Any] = {"intermediate_size": 32, "num_register_tokens": 3}
        processor: Any = transformers.DINOv3ViTImageProcessor(size=square(SIZE_PX))
    else:
        own = {"image_size": 48, "mlp_ratio": 2}
        processor = transformers.BitImageProcessor(
            size={"shortest_edge": 40}, crop_size=square(SIZE_PX)
        )
    names = {
        "dinov2": "Dinov2",
        "dinov2_with_registers": "Dinov2WithRegisters",
        "dinov3_vit": "DINOv3ViT",
    }
    config_class = getattr(transformers, f"{names[model_type]}Config")
    config = config_class(**{**common, **own, "patch_size": PATCH_PX, **changes})
    model = spread(getattr(transformers, f"{names[model_type]}Model")(config))
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return model


def square(side: int) -> dict[str, int]:
    """transformers' form of a size."""
    return {"height": side, "width": side}
