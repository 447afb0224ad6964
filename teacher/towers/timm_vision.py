"""timm's vision transformers: what a model is (built without storage), and its loaded tower.

Legend: B images, N tokens, P patches, D tower width.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import timm
import torch
from PIL import Image
from timm.data.config import resolve_model_data_config
from timm.data.transforms_factory import create_transform
from torch import Tensor, nn
from torch.nn import functional

from pipeline.errors import CheckpointError
from pipeline.formats.weight_files import StateDict, first_line, read_tensors
from teacher.checkpoints.tensors import torch_dtype
from teacher.contract import VitShape
from teacher.preprocessing.config import ImageArray, Sample
from teacher.preprocessing.images import sample_array
from teacher.preprocessing.library_processor import centred_square, rgb_array
from teacher.towers.vision_network import TowerOutput

PROCESSING_VERSION = 1
"""Increment it when the same data configuration starts to give other pixel values."""


@dataclass(frozen=True)
class TimmModel:
    """Facts about a model of timm."""

    grid: tuple[int, int]
    size_px: int
    embedding_dim: int
    patch_dim: int
    shape: VitShape | None
    data: dict[str, Any]
    """timm's evaluation configuration: input size, crop share, interpolation, mean, std."""
    hub_repository: str

    @property
    def field(self) -> float:
        """Side of what the pixel values show, as a share of the centred square's."""
        return field_of(self.data)

    def processing_identity(self) -> dict[str, Any]:
        """What pixel values depend on, JSON-ready."""
        data = {k: list(v) if isinstance(v, tuple) else v for k, v in self.data.items()}
        part = {} if self.field == 1.0 else {"field": self.field}
        return {"tower": "image", "version": PROCESSING_VERSION, "timm": data, **part}


@cache
def describe_timm(name: str) -> TimmModel:
    """Facts about a model, without weights. `CheckpointError` for one that has no patch grid."""
    with torch.device("meta"):
        network = _build(name)
    grid = getattr(getattr(network, "patch_embed", None), "grid_size", None)
    if grid is None or not hasattr(network, "num_prefix_tokens") or grid[0] != grid[1]:
        raise CheckpointError(
            f"timm/{name}: expected a vision transformer with a square patch grid, found "
            f"{type(network).__name__}. Choose one of `timm.list_models('vit_*')`."
        )
    data = dict(resolve_model_data_config(network))  # type: ignore[no-untyped-call]
    return TimmModel(
        grid=(int(grid[0]), int(grid[1])),
        size_px=int(data["input_size"][-1]),
        embedding_dim=int(getattr(network, "head_hidden_size", 0) or network.num_features),
        patch_dim=int(network.num_features),
        shape=_shape(network),
        data=data,
        hub_repository=str(network.pretrained_cfg.get("hf_hub_id") or ""),
    )


def field_of(data: dict[str, Any]) -> float:
    """Share of the centred square's side that timm's evaluation crop shows."""
    if data["crop_mode"] == "squash":
        return 1.0
    side = data["input_size"][-1]
    return float(side / int(np.floor(side / data["crop_pct"])))


@dataclass(frozen=True, slots=True)
class TimmVision:
    """A loaded image tower of timm."""

    network: Any
    transform: Any
    squashes: bool
    embedding_dim: int
    device: torch.device

    def preprocess(self, samples: Sequence[Sample]) -> Tensor:
        """See `LoadedTower`. 16-bit images are rounded to 8 bits: timm's transform reads those."""
        images = [rgb_array(sample_array(s, i), i) for i, s in enumerate(samples)]
        if self.squashes:
            images = [centred_square(image) for image in images]
        return torch.stack([self.transform(_as_pil(image)) for image in images]).to(self.device)

    @torch.inference_mode()
    def encode(self, pixel_values: Tensor, *, patch: bool = False) -> TowerOutput:
        """See `LoadedTower`."""
        dtype = next(self.network.parameters()).dtype
        tokens_BND = self.network.forward_features(pixel_values.to(self.device, dtype))
        pooled = self.network.forward_head(tokens_BND, pre_logits=True).float()
        dense = None
        if patch:
            # Models that pool by the mean have their last norm after it.
            norm = getattr(self.network, "fc_norm", nn.Identity())
            patches = norm(tokens_BND[:, self.network.num_prefix_tokens :]).float()
            dense = functional.normalize(patches, dim=-1)
        embedding = functional.normalize(pooled, dim=-1)
        return TowerOutput(embedding, pooled, pooled, tokens_BND.float(), dense)


def load_timm(name: str, weights: Path, dtype: str, device: str) -> TimmVision:
    """A model with the weights of a file, placed as timm does. Raises `CheckpointError`."""
    facts = describe_timm(name)
    state = read_tensors(weights)
    classes = _num_classes(name, state)
    # timm loads strictly only where the file has as many classes as the model.
    stated = {"state_dict": state, "custom_load": False, "num_classes": classes, "label_offset": 0}
    try:
        network: Any = timm.create_model(
            name, pretrained=True, pretrained_cfg_overlay=stated, num_classes=classes
        )
        network.reset_classifier(0)
    except (RuntimeError, KeyError, ValueError) as error:
        raise CheckpointError(
            f"{weights}: expected the tensors of timm's {name}, found: {first_line(error)}. Use the "
            "weights of this model."
        ) from error
    network = network.eval().requires_grad_(False).to(device=device, dtype=torch_dtype(dtype))
    transform = create_transform(**facts.data, is_training=False)
    squashes = facts.data["crop_mode"] == "squash"
    return TimmVision(network, transform, squashes, facts.embedding_dim, torch.device(device))


def _num_classes(name: str, state: StateDict) -> int:
    """Classes of the classifier in a file of weights; 0: it has none."""
    with torch.device("meta"):
        head = _build(name).pretrained_cfg.get("classifier")
    weight = state.get(f"{head}.weight")
    return 0 if weight is None else len(weight)


def _build(name: str) -> Any:
    try:
        return timm.create_model(name, pretrained=False, num_classes=0)
    except (RuntimeError, ValueError, TypeError) as error:
        raise CheckpointError(
            f"timm/{name}: expected the name of a model in timm, found: {first_line(error)}. See "
            "`timm.list_models('vit_*')`."
        ) from error


def _shape(network: Any) -> VitShape | None:
    """The layout of a plain vision transformer; None for other blocks."""
    try:
        block = network.blocks[0]
        return VitShape(
            hidden_size=int(network.embed_dim),
            intermediate_size=int(block.mlp.fc1.out_features),
            num_layers=len(network.blocks),
            patch_px=int(network.patch_embed.patch_size[0]),
            grid=tuple(network.patch_embed.grid_size),
            num_prefix=int(network.num_prefix_tokens),
        )
    except (AttributeError, TypeError, IndexError):
        return None


def _as_pil(image: ImageArray) -> Image.Image:
    return Image.fromarray(image if image.dtype == np.uint8 else np.rint(image).astype(np.uint8))
