"""The text tower: CLIP's text transformer from a checkpoint's text half, with its tokenizer.

The pooled state is that of the first largest token id, i.e. of the first end of text, whatever
`eos_token_id` the config states; neither padding nor the attention mask changes it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import CLIPTextConfig, CLIPTextModelWithProjection

from pipeline.errors import CheckpointError
from teacher.checkpoints.config_fields import require_divisible
from teacher.checkpoints.hub_config import HubConfig
from teacher.checkpoints.locate import TowerFiles, find_text_tower
from teacher.checkpoints.read import read_checkpoint
from teacher.checkpoints.tensors import plain_state, require_exact, split_halves, torch_dtype
from teacher.checkpoints.tokenizer import ClipTokenizer, load_tokenizer

_BATCH = 256
"""Texts encoded at once."""
_POOL_AT_LARGEST_ID = 2
"""The `eos_token_id` with which transformers pools at the largest id, as upstream always does."""


@dataclass(frozen=True, slots=True)
class TextOutput:
    """Outputs of the text tower for N token sequences of length L, all float32."""

    embedding: Tensor
    """(N, E) unit-norm joint embedding."""
    pooled: Tensor
    """(N, D) final-layernormed state at the first end of text."""
    projected: Tensor
    """(N, E) projection of `pooled`, before normalisation."""
    last_hidden_state: Tensor
    """(N, L, D) final-layernormed states."""


@dataclass(frozen=True)
class TextTower:
    """A loaded text tower; its tokenizer is read on first use."""

    files: TowerFiles
    network: CLIPTextModelWithProjection
    device: torch.device

    @cached_property
    def tokenizer(self) -> ClipTokenizer:
        """The checkpoint's tokenizer; `CheckpointError` if its files are missing or do not fit."""
        files = self.files.tokenizer_files()
        tokenizer = load_tokenizer(files)
        rows = int(self.files.config.text["vocab_size"])
        if tokenizer.vocab_size != rows:
            raise CheckpointError(
                f"{files[0]}: expected {rows} tokens as in config.json, found "
                f"{tokenizer.vocab_size}. Use the tokenizer of this checkpoint."
            )
        return tokenizer

    @property
    def context_length(self) -> int:
        """Tokens of a sequence, begin and end included."""
        return int(self.files.config.text["max_position_embeddings"])

    @property
    def embedding_dim(self) -> int:
        """Width E of the joint space."""
        return self.files.config.projection_dim

    def tokenize(self, texts: Sequence[str]) -> tuple[Tensor, Tensor]:
        """(input_ids, attention_mask), both (N, context_length) int64."""
        ids, mask = self.tokenizer(texts, self.context_length)
        shape = (len(texts), self.context_length)
        return torch.tensor(ids).view(shape), torch.tensor(mask).view(shape)

    def encode(self, texts: Sequence[str]) -> Tensor:
        """(N, E) unit-norm embeddings of N texts."""
        rows = [
            self.encode_ids(*self.tokenize(texts[start : start + _BATCH])).embedding
            for start in range(0, len(texts), _BATCH)
        ]
        return torch.cat(rows) if rows else torch.empty((0, self.embedding_dim))

    @torch.inference_mode()
    def encode_ids(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> TextOutput:
        """Encode (N, L) token ids. The mask changes only the hidden states of padding."""
        mask = None if attention_mask is None else attention_mask.to(self.device)
        model: nn.Module = self.network.text_model
        states = model(input_ids=input_ids.to(self.device), attention_mask=mask)
        projected = self.network.text_projection(states.pooler_output).float()
        return TextOutput(
            embedding=functional.normalize(projected, dim=-1),
            pooled=states.pooler_output.float(),
            projected=projected,
            last_hidden_state=states.last_hidden_state.float(),
        )


def load_text_tower(
    path_or_name: str,
    *,
    revision: str | None = None,
    dtype: str = "float32",
    device: str | torch.device = "cpu",
) -> TextTower:
    """Load the text half of a source: of its Image checkpoint, or of its only tower.

    A checkpoint without tokenizer files still encodes token ids. Raises `CheckpointError`.
    """
    return load_text_files(find_text_tower(str(path_or_name), revision), dtype=dtype, device=device)


def load_text_files(
    files: TowerFiles, *, dtype: str = "float32", device: str | torch.device = "cpu"
) -> TextTower:
    """Load a text tower whose files have been located. Raises `CheckpointError`."""
    network = _load_network(files)
    nn.Module.to(network, device=device, dtype=torch_dtype(dtype))
    return TextTower(files, network, torch.device(device))


def text_network(config: HubConfig, where: str = "text_config") -> CLIPTextModelWithProjection:
    """A text network of the config's shape, freshly initialised, in evaluation mode.

    Raises `CheckpointError` for a width that the heads do not divide.
    """
    text = config.text
    width, num_heads = int(text["hidden_size"]), int(text["num_attention_heads"])
    require_divisible(width, num_heads, where)
    network = CLIPTextModelWithProjection(
        CLIPTextConfig(
            vocab_size=int(text["vocab_size"]),
            hidden_size=width,
            intermediate_size=int(text["intermediate_size"]),
            projection_dim=config.projection_dim,
            num_hidden_layers=int(text["num_hidden_layers"]),
            num_attention_heads=num_heads,
            max_position_embeddings=int(text["max_position_embeddings"]),
            hidden_act=str(text["hidden_act"]),
            layer_norm_eps=float(text["layer_norm_eps"]),
            bos_token_id=0,
            pad_token_id=1,
            eos_token_id=_POOL_AT_LARGEST_ID,
            attn_implementation="sdpa",  # type: ignore[call-arg]
        )
    )
    network.eval()  # type: ignore[no-untyped-call]
    return network


def expected_text_tensors(config: HubConfig, where: str = "text_config") -> dict[str, Tensor]:
    """Name to (storage-less) tensor of the text half that the config describes."""
    with torch.device("meta"):
        return dict(text_network(config, where).state_dict())


def _load_network(files: TowerFiles) -> CLIPTextModelWithProjection:
    where = files.where
    state, _ = read_checkpoint(files.directory)
    _, text = split_halves(plain_state(state, files.config, where))
    if not text:
        raise CheckpointError(
            f"{where}: expected text_model.* tensors, found a checkpoint without a text tower. "
            "Add the Image checkpoint to the source, or name one that has a text half."
        )
    with torch.device("meta"):
        network = text_network(files.config, where)
    require_exact(text, network.state_dict(), where)
    network.load_state_dict(text, strict=True, assign=True)
    # A non-persistent buffer: no checkpoint carries it, so it still has no storage here.
    positions = network.text_model.embeddings.position_embedding.num_embeddings
    network.text_model.embeddings.position_ids = torch.arange(positions)[None]
    network.requires_grad_(False)
    return network
