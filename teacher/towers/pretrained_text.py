"""Text towers of transformers checkpoints, with their own tokenizers.

CLIP: the projected state at the end of text. SigLIP: lower-cased texts, padded to the context length (as
it was trained), the head over the last token. Tokenizer files are read locally, and none of their code.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import Tensor, nn
from torch.nn import functional

from pipeline.errors import CheckpointError
from pipeline.formats.weight_files import first_line
from teacher.towers.pretrained_model import load_model, read_config

MODELS: dict[str, tuple[str, str]] = {
    "clip": ("CLIPTextModelWithProjection", "text_embeds"),
    "siglip": ("SiglipTextModel", "pooler_output"),
}
"""Model type to transformers' class and the output that lies in the space of the images."""
_VISION = ("vision_model.", "visual_projection.", "logit_")
_BATCH = 256
"""Texts encoded at once."""


@dataclass(frozen=True, slots=True)
class PretrainedTextTower:
    """A loaded text tower."""

    network: nn.Module
    tokenizer: Any
    output: str
    lower: bool
    context_length: int
    embedding_dim: int
    device: torch.device

    def tokenize(self, texts: Sequence[str]) -> dict[str, Tensor]:
        """What the network reads: (N, L) `input_ids`, and `attention_mask` if the tokenizer gives one."""
        rows = self.tokenizer(
            [text.lower() if self.lower else text for text in texts],
            padding="max_length",
            truncation=True,
            max_length=self.context_length,
            return_tensors="pt",
        )
        names = ("input_ids", "attention_mask")
        return {name: rows[name].to(self.device) for name in names if name in rows}

    @torch.inference_mode()
    def encode(self, texts: Sequence[str]) -> Tensor:
        """See `LoadedText`."""
        rows = [
            getattr(self.network(**self.tokenize(texts[i : i + _BATCH])), self.output).float()
            for i in range(0, len(texts), _BATCH)
        ]
        if not rows:
            return torch.empty((0, self.embedding_dim))
        return functional.normalize(torch.cat(rows), dim=-1)


def load_text(
    folder: Path, model: str, context_length: int, dtype: str, device: str
) -> PretrainedTextTower:
    """The text tower of a checkpoint folder; `model` is a key of `MODELS`. `CheckpointError`."""
    class_name, output = MODELS[model]
    composite = read_config(folder)
    config = composite.text_config
    if model == "clip":
        config.projection_dim = composite.projection_dim
    tokenizer = _read_tokenizer(folder, int(config.vocab_size))
    network = load_model(folder, getattr(transformers, class_name), config, _VISION, dtype, device)
    dim = config.projection_dim if model == "clip" else config.projection_size
    return PretrainedTextTower(
        network=network,
        tokenizer=tokenizer,
        output=output,
        lower=model == "siglip",
        context_length=context_length,
        embedding_dim=int(dim),
        device=torch.device(device),
    )


def _read_tokenizer(folder: Path, rows: int) -> Any:
    """The folder's tokenizer; `CheckpointError` if it cannot be read or has ids beyond `rows`."""
    try:
        tokenizer: Any = transformers.AutoTokenizer.from_pretrained(folder, local_files_only=True)
    except (
        Exception
    ) as error:  # missing files, missing packages, malformed JSON: errors of many kinds
        raise CheckpointError(
            f"{folder}: expected a tokenizer that transformers can read, found: {first_line(error)}. "
            "Copy the tokenizer files of the checkpoint beside its config.json."
        ) from error
    if len(tokenizer) > rows:
        raise CheckpointError(
            f"{folder}: expected at most {rows} tokens as in config.json, found {len(tokenizer)}. "
            "Use the tokenizer of this checkpoint."
        )
    return tokenizer
