"""LanguageBind's video towers: score texts against a clip.

    python -m examples.languagebind_video CHECKPOINT_FOLDER CLIP.mp4 \
        --text-source LanguageBind/LanguageBind_Image --text "a dog runs" --text "a car parks"

Adds temporal attention, and (V1.5) one class embedding per frame, to `teacher`'s vision network, and
upstream's video preprocessing without its random flip: upstream mirrors every clip with probability
one half, also at inference. Video files are read through PyAV (`pip install av`).

Shape letters: B samples, T frames, N tokens (class token first), C channels, H W pixels, D tower width.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional
from transformers import CLIPVisionConfig
from transformers.models.clip.modeling_clip import CLIPMLP, CLIPAttention, CLIPEncoderLayer

from pipeline.formats.weight_files import StateDict
from teacher import load_text_tower
from teacher.checkpoints.hub_config import HubConfig, parse_config
from teacher.checkpoints.locate import CONFIG, TowerFiles
from teacher.checkpoints.weight_index import weight_files
from teacher.preprocessing.config import CLIP_MEAN, CLIP_STD
from teacher.towers.vision_network import (
    Embeddings,
    TowerOutput,
    VisionLayout,
    VisionNetwork,
    layout_of,
)
from teacher.towers.vision_tower import load_network


@dataclass(frozen=True, slots=True)
class ClipLayout(VisionLayout):
    """A vision layout with temporal layers."""

    num_frames: int = 8
    temporal_mlp: bool = False
    class_per_frame: bool = False


class ClipEmbeddings(Embeddings):
    """One class embedding per frame."""

    def __init__(self, layout: ClipLayout) -> None:
        super().__init__(layout)
        shape = (layout.num_frames, layout.hidden_size)
        self.class_embedding = nn.Parameter(torch.randn(shape) * layout.hidden_size**-0.5)

    def class_tokens(self, num: int) -> Tensor:
        """The class tokens of `num` = B * T frames, (B*T, 1, D)."""
        return self.class_embedding.repeat(num // len(self.class_embedding), 1).unsqueeze(1)


class TemporalLayer(CLIPEncoderLayer):  # type: ignore[no-untyped-call]
    """A CLIP layer preceded by attention over the frames of each token position."""

    def __init__(self, config: CLIPVisionConfig, layout: ClipLayout) -> None:
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


class ClipNetwork(VisionNetwork):
    """A vision network that attends over the frames of a clip."""

    def __init__(self, layout: ClipLayout) -> None:
        super().__init__(layout)
        self.num_frames = layout.num_frames
        config = layout.clip_config()
        layers = [TemporalLayer(config, layout) for _ in range(layout.num_layers)]
        self.vision_model.encoder.layers = nn.ModuleList(layers)
        if layout.class_per_frame:
            self.vision_model.embeddings = ClipEmbeddings(layout)

    def forward(self, pixels: Tensor, patch: bool = False) -> TowerOutput:
        """Encode (B, 3, T, H, W) clips of the tower's own T. Raises `ValueError` for any other T."""
        num_frames = pixels.shape[2] if pixels.ndim == 5 else 1
        if num_frames != self.num_frames:
            raise ValueError(
                f"pixel values: this tower attends over exactly {self.num_frames} frames, found "
                f"{num_frames} in {tuple(pixels.shape)}; other counts would mix samples"
            )
        return super().forward(pixels, patch)

    def dense_embeddings(self, before_FND: Tensor, num_frames: int) -> Tensor:
        """As for an image, after the last layer's temporal part."""
        last: Any = self.vision_model.encoder.layers
        return super().dense_embeddings(last[-1].mix_frames(before_FND), num_frames)


def clip_network_of(config: HubConfig, state: StateDict, where: str) -> ClipNetwork:
    """The network of a video checkpoint, frames and temporal parts taken from its tensors."""
    temporal = next(t for n, t in state.items() if n.endswith(".temporal_embedding"))
    layout = ClipLayout(
        **asdict(layout_of(config, state, where)),
        num_frames=int(temporal.shape[1]),
        temporal_mlp=any(".temporal_mlp." in name for name in state),
        class_per_frame=state["vision_model.embeddings.class_embedding"].ndim == 2,
    )
    return ClipNetwork(layout)


def video_config(raw: Mapping[str, Any], where: str) -> HubConfig:
    """A video checkpoint's config.json: that of an image tower, whose tensors add the temporal parts."""
    return parse_config({**raw, "model_type": "LanguageBindImage"}, where)


def checkpoint_files(folder: Path, config: HubConfig) -> TowerFiles:
    """The files of a checkpoint folder, for `teacher.towers.vision_tower.load_network`."""
    return TowerFiles(str(folder), folder, weight_files(folder), config, None)


def load_video_network(folder: Path) -> ClipNetwork:
    """The network of a local video checkpoint. Raises `CheckpointError`."""
    path = folder / CONFIG
    config = video_config(json.loads(path.read_text(encoding="utf-8")), str(path))
    network = load_network(checkpoint_files(folder, config), clip_network_of)
    assert isinstance(network, ClipNetwork)
    return network


def read_video(path: Path) -> NDArray[np.uint8]:
    """All frames of a video file as (T, H, W, 3) uint8 RGB."""
    import av  # type: ignore[import-not-found]

    with av.open(str(path)) as container:
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    return np.stack(frames)


def frame_indices(total: int, num_frames: int) -> NDArray[np.int64]:
    """Evenly spaced frame numbers, first and last included, truncated as upstream does."""
    return np.linspace(0, total - 1, num_frames, dtype=int)


def clip_pixels(clip_THWC: NDArray[np.uint8], num_frames: int = 8, size_px: int = 224) -> Tensor:
    """A uint8 RGB clip to (3, num_frames, size_px, size_px), in upstream's order of steps.

    Normalise, bilinear resize of the shorter side (longer side floored), centre crop. Raises
    `ValueError` for an array of another form.
    """
    if clip_THWC.ndim != 4 or clip_THWC.dtype != np.uint8:
        raise ValueError(
            f"clip: expected (T, H, W, 3) uint8 frames, found {clip_THWC.shape} {clip_THWC.dtype}"
        )
    chosen = torch.from_numpy(clip_THWC[frame_indices(len(clip_THWC), num_frames)])
    frames_CTHW = chosen.permute(3, 0, 1, 2).contiguous().float() / 255
    mean, std = (torch.tensor(values).view(3, 1, 1, 1) for values in (CLIP_MEAN, CLIP_STD))
    return _centre_crop(_resize_short_side((frames_CTHW - mean) / std, size_px), size_px)


def _resize_short_side(frames_CTHW: Tensor, size_px: int) -> Tensor:
    height, width = frames_CTHW.shape[-2:]
    if width < height:
        size = (math.floor(height / width * size_px), size_px)
    else:
        size = (size_px, math.floor(width / height * size_px))
    return functional.interpolate(frames_CTHW, size=size, mode="bilinear", align_corners=False)


def _centre_crop(frames_CTHW: Tensor, size_px: int) -> Tensor:
    height, width = frames_CTHW.shape[-2:]
    top, left = round((height - size_px) / 2.0), round((width - size_px) / 2.0)
    return frames_CTHW[..., top : top + size_px, left : left + size_px]


def main(
    checkpoint: Path,
    clip: Path,
    text: Annotated[list[str], typer.Option(help="A text to score; repeatable.")],
    text_source: Annotated[str, typer.Option(help="Source of the text tower, as teacher.name.")],
) -> None:
    """Print the cosine of every text with the clip."""
    network = load_video_network(checkpoint)
    pixels = clip_pixels(read_video(clip), network.num_frames, network.layout.input_px[0])
    with torch.inference_mode():
        cosines = load_text_tower(text_source).encode(text) @ network(pixels[None]).embedding[0]
    for line, cosine in zip(text, cosines.tolist(), strict=True):
        print(f"{cosine:.4f} {line}")


if __name__ == "__main__":
    typer.run(main)
