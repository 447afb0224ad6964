"""The vision network of every LanguageBind tower, on transformers' CLIP layers.

One class serves all: square or (audio) rectangular patch grids, one class embedding or (V1.5) one a
frame, layers with or without the temporal block. Module names equal the released tensor names after
LoRA merging, so loading is strict. Writes nothing; refuses pixel values of a wrong form.

Shape letters: B samples, T frames, N tokens (class token first), P = N - 1 patches, C channels,
H W pixels, D tower width, E joint width.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import CLIPVisionConfig
from transformers.models.clip.modeling_clip import CLIPMLP, CLIPAttention, CLIPEncoderLayer

from pipeline.errors import CheckpointError
from teacher.checkpoints.hub_config import HubConfig


@dataclass(frozen=True, slots=True)
class TowerOutput:
    """What a tower says about B samples, all float32."""

    embedding: Tensor
    """(B, E) unit-norm joint embedding."""
    pooled: Tensor
    """(B, D) post-layernormed class token, averaged over frames."""
    projected: Tensor
    """(B, E) projection of `pooled`, before normalisation."""
    last_hidden_state: Tensor
    """(B*T, N, D) output of the last layer, without post-layernorm."""
    patch: Tensor | None = None
    """(B, P, E) unit-norm dense embeddings, averaged over frames; None unless asked for."""


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
    num_frames: int = 1
    temporal: bool = False
    temporal_mlp: bool = False
    class_per_frame: bool = False
    logit_scale_init: float = 2.6592

    @property
    def input_px(self) -> tuple[int, int]:
        """Input height and width in pixels (audio: mel bins and time frames)."""
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


def layout_of(config: HubConfig, state: dict[str, Tensor], where: str) -> VisionLayout:
    """Layout from config.json, with frames and temporal parts taken from the tensors.

    Raises `CheckpointError` if the positions in the file do not fit the input size in the config.
    """
    vision = config.vision
    positions = state.get("vision_model.embeddings.position_embedding.weight")
    rows, columns = config.grid
    if positions is not None and positions.shape[0] != rows * columns + 1:
        raise CheckpointError(
            f"{where}: config.json gives a {rows} x {columns} patch grid, i.e. "
            f"{rows * columns + 1} positions; the tensors have {positions.shape[0]}. "
            "Use the config.json that belongs to these weights."
        )
    temporal = next((t for n, t in state.items() if n.endswith(".temporal_embedding")), None)
    class_embedding = state.get("vision_model.embeddings.class_embedding")
    return VisionLayout(
        hidden_size=int(vision["hidden_size"]),
        intermediate_size=int(vision["intermediate_size"]),
        num_layers=int(vision["num_hidden_layers"]),
        num_heads=int(vision["num_attention_heads"]),
        patch_px=int(vision["patch_size"]),
        grid=config.grid,
        projection_dim=config.projection_dim,
        hidden_act=str(vision["hidden_act"]),
        layer_norm_eps=float(vision["layer_norm_eps"]),
        num_frames=1 if temporal is None else int(temporal.shape[1]),
        temporal=temporal is not None,
        temporal_mlp=any(".temporal_mlp." in name for name in state),
        class_per_frame=class_embedding is not None and class_embedding.ndim == 2,
        logit_scale_init=config.logit_scale_init,
    )


class Embeddings(nn.Module):
    """Patches, class token and learned positions."""

    def __init__(self, layout: VisionLayout) -> None:
        super().__init__()
        width, patch = layout.hidden_size, layout.patch_px
        shape = (layout.num_frames, width) if layout.class_per_frame else (width,)
        self.class_embedding = nn.Parameter(torch.randn(shape) * width**-0.5)
        self.patch_embedding = nn.Conv2d(3, width, patch, stride=patch, bias=False)
        self.position_embedding = nn.Embedding(layout.grid[0] * layout.grid[1] + 1, width)
        nn.init.normal_(self.position_embedding.weight, std=0.02)

    def forward(self, frames_FCHW: Tensor, num_frames: int) -> Tensor:
        """(F, 3, H, W) with F = B*T in frame order to (F, N, D)."""
        count = frames_FCHW.shape[0]
        if frames_FCHW.is_cuda:
            patches = patch_product(frames_FCHW, self.patch_embedding.weight)
        else:
            patches = self.patch_embedding(frames_FCHW).flatten(2).transpose(1, 2)
        if self.class_embedding.ndim == 2:
            tokens = self.class_embedding.repeat(count // num_frames, 1).unsqueeze(1)
        else:
            tokens = self.class_embedding.expand(count, 1, -1)
        return torch.cat([tokens, patches], dim=1) + self.position_embedding.weight


def patch_product(frames_FCHW: Tensor, kernel_DCpp: Tensor) -> Tensor:
    """The patch convolution as a matrix product, (F, P, D): cuDNN would run it in TF32."""
    count, channels, height, width = frames_FCHW.shape
    side = kernel_DCpp.shape[-1]
    tiles = frames_FCHW.reshape(count, channels, height // side, side, width // side, side)
    rows = tiles.permute(0, 2, 4, 1, 3, 5).reshape(count, -1, channels * side * side)
    return functional.linear(rows, kernel_DCpp.flatten(1))


class TemporalLayer(CLIPEncoderLayer):  # type: ignore[no-untyped-call]
    """A CLIP layer preceded by attention over the frames of each token position."""

    def __init__(self, config: CLIPVisionConfig, layout: VisionLayout) -> None:
        super().__init__(config)
        width, eps = layout.hidden_size, layout.layer_norm_eps
        self.num_frames = layout.num_frames
        self.temporal_embedding = nn.Parameter(torch.zeros(1, layout.num_frames, width))
        self.temporal_attn = CLIPAttention(config)
        self.temporal_layer_norm1 = nn.LayerNorm(width, eps=eps)
        if layout.temporal_mlp:
            self.temporal_mlp = CLIPMLP(config)  # type: ignore[no-untyped-call]
            self.temporal_layer_norm2 = nn.LayerNorm(width, eps=eps)

    def mix_frames(self, hidden_FND: Tensor) -> Tensor:
        """The temporal part alone: (B*T, N, D) to the same shape."""
        frames, tokens, width = hidden_FND.shape
        x: Tensor = hidden_FND.view(-1, self.num_frames, tokens, width).transpose(1, 2)
        x = x.reshape(-1, self.num_frames, width) + self.temporal_embedding
        x = x + self.temporal_attn(self.temporal_layer_norm1(x), None)[0]
        if hasattr(self, "temporal_mlp"):
            x = x + self.temporal_mlp(self.temporal_layer_norm2(x))
        x = x.view(-1, tokens, self.num_frames, width).transpose(1, 2)
        return x.reshape(frames, tokens, width)

    def forward(self, hidden_FND: Tensor, attention_mask: None = None) -> Tensor:  # type: ignore[override]
        """Frames first, then the ordinary CLIP block."""
        return super().forward(self.mix_frames(hidden_FND), attention_mask)  # type: ignore[arg-type]


class VisionTransformer(nn.Module):
    """Embeddings, pre-norm (upstream's spelling), layers, post-norm."""

    def __init__(self, layout: VisionLayout) -> None:
        super().__init__()
        config = layout.clip_config()
        self.embeddings = Embeddings(layout)
        self.pre_layrnorm = nn.LayerNorm(layout.hidden_size, eps=layout.layer_norm_eps)
        self.encoder = nn.Module()
        self.encoder.layers = nn.ModuleList(
            TemporalLayer(config, layout) if layout.temporal else CLIPEncoderLayer(config)
            for _ in range(layout.num_layers)
        )
        self.post_layernorm = nn.LayerNorm(layout.hidden_size, eps=layout.layer_norm_eps)

    def forward(self, frames_FCHW: Tensor, num_frames: int) -> tuple[Tensor, Tensor]:
        """(input of the last layer, output of the last layer), both (F, N, D)."""
        hidden = self.pre_layrnorm(self.embeddings(frames_FCHW, num_frames))
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

        Several frames without temporal attention are averaged after the post-layernorm, as upstream
        does. Raises `ValueError` for any other rank, size or (temporal towers) frame count.
        """
        frames, num_frames = self._as_frames(pixels)
        before, last = self.vision_model(frames, num_frames)
        tokens = self.vision_model.post_layernorm(last[:, 0])
        pooled = tokens.view(-1, num_frames, tokens.shape[-1]).mean(dim=1)
        projected = self.visual_projection(pooled)
        dense = self._dense(before, num_frames) if patch else None
        return TowerOutput(
            embedding=functional.normalize(projected.float(), dim=-1),
            pooled=pooled.float(),
            projected=projected.float(),
            last_hidden_state=last.float(),
            patch=dense,
        )

    def _as_frames(self, pixels: Tensor) -> tuple[Tensor, int]:
        wanted, size = self.layout.num_frames, self.layout.input_px
        if pixels.ndim not in (4, 5) or pixels.shape[1] != 3 or tuple(pixels.shape[-2:]) != size:
            raise ValueError(
                f"pixel values: expected (B, 3, {size[0]}, {size[1]}) or (B, 3, T, {size[0]}, "
                f"{size[1]}), found {tuple(pixels.shape)}; make them with tower.preprocess"
            )
        num_frames = pixels.shape[2] if pixels.ndim == 5 else 1
        if self.layout.temporal and num_frames != wanted:
            raise ValueError(
                f"pixel values: this tower attends over exactly {wanted} frames, found "
                f"{num_frames} in {tuple(pixels.shape)}; other counts would mix samples"
            )
        if pixels.ndim == 5:
            pixels = pixels.transpose(1, 2).flatten(0, 1)
        return pixels.to(self.visual_projection.weight.dtype), num_frames

    def _dense(self, before_FND: Tensor, num_frames: int) -> Tensor:
        """Per-patch joint embeddings by MaskCLIP's route (Zhou et al. 2022, sec. 3.2).

        In the last layer, attention is replaced by its value path: layernorm, v_proj, out_proj,
        with neither residual nor MLP; then post-layernorm and projection as for the class token.
        """
        layer = cast(nn.ModuleList, self.vision_model.encoder.layers)[-1]
        hidden = layer.mix_frames(before_FND) if isinstance(layer, TemporalLayer) else before_FND
        attention = cast(CLIPAttention, layer.self_attn)
        values = attention.out_proj(attention.v_proj(layer.layer_norm1(hidden[:, 1:])))  # type: ignore[operator]
        normed = self.vision_model.post_layernorm(values)
        patches_BTPD = normed.view(-1, num_frames, *normed.shape[1:])
        projected = self.visual_projection(patches_BTPD.mean(dim=1))
        return functional.normalize(projected.float(), dim=-1)
