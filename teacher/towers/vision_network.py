"""The vision network of LanguageBind's towers, on transformers' CLIP layers.

Module names equal the released tensor names after LoRA merging, so loading is strict. Patch grids
may be rectangular; the temporal layers of video checkpoints are in `examples/languagebind_video.py`.

Shape letters: B samples, T frames, F = B * T, N tokens (class token first), P = N - 1 patches,
C channels, H W pixels, D tower width, E joint width.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import CLIPVisionConfig
from transformers.models.clip.modeling_clip import CLIPAttention, CLIPEncoderLayer

from pipeline.errors import CheckpointError
from pipeline.formats.weight_files import StateDict
from teacher.checkpoints.config_fields import require_divisible
from teacher.checkpoints.hub_config import HubConfig


@dataclass(frozen=True, slots=True)
class TowerOutput:
    """Outputs of a tower for B samples, all float32."""

    embedding: Tensor
    """(B, E) unit-norm joint embedding."""
    pooled: Tensor
    """(B, D) post-layernormed class token, averaged over frames."""
    projected: Tensor
    """(B, E) projection of `pooled`, before normalisation."""
    last_hidden_state: Tensor
    """(B*T, N, D) output of the last layer, without post-layernorm."""
    patch: Tensor | None = None
    """(B, P, E) unit-norm dense embeddings, averaged over frames; None unless requested."""


@dataclass(frozen=True, slots=True)
class VisionLayout:
    """The shape of a vision network: what config.json and the tensors agree on."""

    hidden_size: int
    intermediate_size: int
    num_layers: int
    num_heads: int
    patch_px: int
    grid: tuple[int, int]
    projection_dim: int
    hidden_act: str = "gelu"
    layer_norm_eps: float = 1e-5
    logit_scale_init: float = 2.6592

    @property
    def input_px(self) -> tuple[int, int]:
        """Input height and width in pixels."""
        return self.grid[0] * self.patch_px, self.grid[1] * self.patch_px

    def clip_config(self) -> CLIPVisionConfig:
        """The transformers configuration of one layer."""
        return CLIPVisionConfig(
            hidden_size=self.hidden_size,
            intermediate_size=self.intermediate_size,
            num_hidden_layers=self.num_layers,
            num_attention_heads=self.num_heads,
            hidden_act=self.hidden_act,
            layer_norm_eps=self.layer_norm_eps,
            projection_dim=self.projection_dim,
            attn_implementation="sdpa",  # type: ignore[call-arg]
        )


def layout_of(config: HubConfig, state: StateDict, where: str) -> VisionLayout:
    """The layout in config.json, checked against the positions in the file. `CheckpointError`."""
    vision = config.vision
    width, num_heads = int(vision["hidden_size"]), int(vision["num_attention_heads"])
    require_divisible(width, num_heads, where)
    positions = state.get("vision_model.embeddings.position_embedding.weight")
    rows, columns = config.grid
    if positions is not None and positions.shape[0] != rows * columns + 1:
        raise CheckpointError(
            f"{where}: config.json gives a {rows} x {columns} patch grid, i.e. "
            f"{rows * columns + 1} positions; the tensors have {positions.shape[0]}. "
            "Use the config.json that belongs to these weights."
        )
    return VisionLayout(
        hidden_size=width,
        intermediate_size=int(vision["intermediate_size"]),
        num_layers=int(vision["num_hidden_layers"]),
        num_heads=num_heads,
        patch_px=int(vision["patch_size"]),
        grid=config.grid,
        projection_dim=config.projection_dim,
        hidden_act=str(vision["hidden_act"]),
        layer_norm_eps=float(vision["layer_norm_eps"]),
        logit_scale_init=config.logit_scale_init,
    )


def network_of(config: HubConfig, state: StateDict, where: str) -> VisionNetwork:
    """The network that a checkpoint describes, without its weights.

    Raises `CheckpointError` for temporal layers, which attend over the frames of a clip.
    """
    if any(".temporal_" in name for name in state):
        raise CheckpointError(
            f"{where}: expected a tower without temporal layers, found some: shards hold images, not "
            "clips. examples/languagebind_video.py encodes clips with these weights."
        )
    return VisionNetwork(layout_of(config, state, where))


class Embeddings(nn.Module):
    """Patches, class token and learned positions."""

    def __init__(self, layout: VisionLayout) -> None:
        super().__init__()
        width, patch = layout.hidden_size, layout.patch_px
        self.class_embedding = nn.Parameter(torch.randn(width) * width**-0.5)
        self.patch_embedding = nn.Conv2d(3, width, patch, stride=patch, bias=False)
        self.position_embedding = nn.Embedding(layout.grid[0] * layout.grid[1] + 1, width)
        nn.init.normal_(self.position_embedding.weight, std=0.02)

    def class_tokens(self, num: int) -> Tensor:
        """The class token of each of `num` frames, (F, 1, D)."""
        return self.class_embedding.expand(num, 1, -1)

    def forward(self, frames_FCHW: Tensor) -> Tensor:
        """(F, 3, H, W) to (F, N, D)."""
        if frames_FCHW.is_cuda:
            patches = patch_product(frames_FCHW, self.patch_embedding.weight)
        else:
            patches = self.patch_embedding(frames_FCHW).flatten(2).transpose(1, 2)
        tokens = torch.cat([self.class_tokens(len(frames_FCHW)), patches], dim=1)
        return tokens + self.position_embedding.weight


def patch_product(frames_FCHW: Tensor, kernel_DCpp: Tensor) -> Tensor:
    """The patch convolution as a matrix product, (F, P, D): cuDNN would run it in TF32."""
    count, channels, height, width = frames_FCHW.shape
    side = kernel_DCpp.shape[-1]
    tiles = frames_FCHW.reshape(count, channels, height // side, side, width // side, side)
    rows = tiles.permute(0, 2, 4, 1, 3, 5).reshape(count, -1, channels * side * side)
    return functional.linear(rows, kernel_DCpp.flatten(1))


class VisionTransformer(nn.Module):
    """Embeddings, pre-norm (upstream's spelling), layers, post-norm."""

    def __init__(self, layout: VisionLayout) -> None:
        super().__init__()
        config = layout.clip_config()
        self.embeddings = Embeddings(layout)
        self.pre_layrnorm = nn.LayerNorm(layout.hidden_size, eps=layout.layer_norm_eps)
        self.encoder = nn.Module()
        self.encoder.layers = nn.ModuleList(
            CLIPEncoderLayer(config) for _ in range(layout.num_layers)
        )
        self.post_layernorm = nn.LayerNorm(layout.hidden_size, eps=layout.layer_norm_eps)

    def forward(self, frames_FCHW: Tensor) -> tuple[Tensor, Tensor]:
        """(input of the last layer, output of the last layer), both (F, N, D)."""
        hidden = self.pre_layrnorm(self.embeddings(frames_FCHW))
        before = hidden
        for layer in cast(nn.ModuleList, self.encoder.layers):
            before, hidden = hidden, layer(hidden, None)
        return before, hidden


class VisionNetwork(nn.Module):
    """A whole tower: the transformer, the projection to the joint space and the logit scale."""

    def __init__(self, layout: VisionLayout) -> None:
        super().__init__()
        self.layout = layout
        self.vision_model = VisionTransformer(layout)
        self.visual_projection = nn.Linear(layout.hidden_size, layout.projection_dim, bias=False)
        self.logit_scale = nn.Parameter(torch.tensor(layout.logit_scale_init))

    def forward(self, pixels: Tensor, patch: bool = False) -> TowerOutput:
        """Encode (B, 3, H, W) or (B, 3, T, H, W) pixel values; see `TowerOutput`.

        T frames are averaged after the post-layernorm, as upstream does. Raises `ValueError` for any
        other rank or size.
        """
        frames, num_frames = self._as_frames(pixels)
        before, last = self.vision_model(frames)
        tokens = self.vision_model.post_layernorm(last[:, 0])
        pooled = tokens.view(-1, num_frames, tokens.shape[-1]).mean(dim=1)
        projected = self.visual_projection(pooled)
        dense = self.dense_embeddings(before, num_frames) if patch else None
        return TowerOutput(
            embedding=functional.normalize(projected.float(), dim=-1),
            pooled=pooled.float(),
            projected=projected.float(),
            last_hidden_state=last.float(),
            patch=dense,
        )

    def _as_frames(self, pixels: Tensor) -> tuple[Tensor, int]:
        size = self.layout.input_px
        if pixels.ndim not in (4, 5) or pixels.shape[1] != 3 or tuple(pixels.shape[-2:]) != size:
            raise ValueError(
                f"pixel values: expected (B, 3, {size[0]}, {size[1]}) or (B, 3, T, {size[0]}, "
                f"{size[1]}), found {tuple(pixels.shape)}; make them with tower.preprocess"
            )
        num_frames = pixels.shape[2] if pixels.ndim == 5 else 1
        if pixels.ndim == 5:
            pixels = pixels.transpose(1, 2).flatten(0, 1)
        return pixels.to(self.visual_projection.weight.dtype), num_frames

    def dense_embeddings(self, before_FND: Tensor, num_frames: int) -> Tensor:
        """Per-patch joint embeddings by MaskCLIP's route (Zhou et al. 2022, sec. 3.2).

        In the last layer, attention is replaced by its value path: layernorm, v_proj, out_proj,
        with neither residual nor MLP; then post-layernorm and projection as for the class token.
        """
        layer = cast(nn.ModuleList, self.vision_model.encoder.layers)[-1]
        attention = cast(CLIPAttention, layer.self_attn)
        values = attention.out_proj(attention.v_proj(layer.layer_norm1(before_FND[:, 1:])))  # type: ignore[operator]
        normed = self.vision_model.post_layernorm(values)
        patches_BTPD = normed.view(-1, num_frames, *normed.shape[1:])
        projected = self.visual_projection(patches_BTPD.mean(dim=1))
        return functional.normalize(projected.float(), dim=-1)
