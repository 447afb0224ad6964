"""Image towers of transformers checkpoints: the library's forward, and dense outputs where it has none.

Each family is one function from pixel values to a `TowerOutput`; `MODELS` names them.

Legend: B images, N tokens, P patches, D tower width, E joint width.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import Tensor, nn
from torch.nn import functional

from teacher.preprocessing.config import Sample
from teacher.preprocessing.library_processor import LibraryProcessor
from teacher.towers.pretrained_model import load_model, read_config
from teacher.towers.vision_network import TowerOutput

Forward = Callable[[Any, Tensor, bool], TowerOutput]
"""(network, pixels in its dtype, whether dense outputs are requested) to outputs."""
_TEXT = ("text_model.", "text_projection.", "logit_")


@dataclass(frozen=True, slots=True)
class PretrainedVision:
    """A loaded image tower."""

    network: nn.Module
    forward: Forward
    processor: LibraryProcessor
    input_px: tuple[int, int]
    embedding_dim: int
    device: torch.device

    def preprocess(self, samples: Sequence[Sample]) -> Tensor:
        """See `LoadedTower`."""
        return self.processor(samples, self.device)

    @torch.inference_mode()
    def encode(self, pixel_values: Tensor, *, patch: bool = False) -> TowerOutput:
        """See `LoadedTower`. `ValueError` for pixel values of another size."""
        if pixel_values.ndim != 4 or tuple(pixel_values.shape[1:]) != (3, *self.input_px):
            raise ValueError(
                f"pixel values: expected (B, 3, {self.input_px[0]}, {self.input_px[1]}), found "
                f"{tuple(pixel_values.shape)}; make them with tower.preprocess"
            )
        dtype = next(self.network.parameters()).dtype
        return self.forward(self.network, pixel_values.to(self.device, dtype), patch)


def load_vision(
    folder: Path,
    model: str,
    centre_square: bool,
    input_px: tuple[int, int],
    dtype: str,
    device: str,
) -> PretrainedVision:
    """The image tower of a checkpoint folder; `model` is a key of `MODELS`. `CheckpointError`."""
    class_name, forward = MODELS[model]
    config = _vision_config(read_config(folder), model)
    network = load_model(folder, getattr(transformers, class_name), config, _TEXT, dtype, device)
    dim = config.projection_dim if model == "clip" else config.hidden_size
    processor = LibraryProcessor(folder, centre_square)
    return PretrainedVision(network, forward, processor, input_px, int(dim), torch.device(device))


def _vision_config(config: Any, model: str) -> Any:
    if model not in ("clip", "siglip"):
        return config
    vision = config.vision_config
    if model == "clip":
        # As CLIPModel does: the width of the joint space is the composite's, not the section's.
        vision.projection_dim = config.projection_dim
    return vision


def _clip(network: Any, pixels: Tensor, patch: bool) -> TowerOutput:
    """CLIP: the projected class token; dense by MaskCLIP's value path of the last layer."""
    output = network(pixel_values=pixels, output_hidden_states=patch)
    vision = network.vision_model
    dense = None
    if patch:
        layer = vision.encoder.layers[-1]
        before = layer.layer_norm1(output.hidden_states[-2][:, 1:])
        values = layer.self_attn.out_proj(layer.self_attn.v_proj(before))
        dense = _unit(network.visual_projection(vision.post_layernorm(values)))
    pooled = vision.post_layernorm(output.last_hidden_state[:, 0])
    return _outputs(pooled, output.image_embeds, output.last_hidden_state, dense)


def _siglip(network: Any, pixels: Tensor, patch: bool) -> TowerOutput:
    """SigLIP: the attention pooling head over all tokens, and over each token alone."""
    output = network(pixel_values=pixels)
    tokens_BPD = output.last_hidden_state
    dense = None
    if patch:
        head = getattr(network, "vision_model", network).head
        dense = _unit(head(tokens_BPD.flatten(0, 1)[:, None]).view_as(tokens_BPD))
    return _outputs(output.pooler_output, output.pooler_output, tokens_BPD, dense)


def _dino(network: Any, pixels: Tensor, patch: bool) -> TowerOutput:
    """DINO: the normed class token; dense are the normed patch tokens."""
    output = network(pixel_values=pixels)
    tokens_BND = output.last_hidden_state
    first = 1 + int(getattr(network.config, "num_register_tokens", 0))
    dense = _unit(tokens_BND[:, first:]) if patch else None
    return _outputs(output.pooler_output, output.pooler_output, tokens_BND, dense)


MODELS: dict[str, tuple[str, Forward]] = {
    "clip": ("CLIPVisionModelWithProjection", _clip),
    "siglip": ("SiglipVisionModel", _siglip),
    "dinov2": ("Dinov2Model", _dino),
    "dinov2_with_registers": ("Dinov2WithRegistersModel", _dino),
    "dinov3_vit": ("DINOv3ViTModel", _dino),
}
"""Model type to transformers' class and the outputs that are read from it."""


def _outputs(pooled: Tensor, projected: Tensor, last: Tensor, dense: Tensor | None) -> TowerOutput:
    return TowerOutput(
        embedding=_unit(projected),
        pooled=pooled.float(),
        projected=projected.float(),
        last_hidden_state=last.float(),
        patch=dense,
    )


def _unit(rows: Tensor) -> Tensor:
    return functional.normalize(rows.float(), dim=-1)
