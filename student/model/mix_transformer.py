"""Mix Transformers `mit_b0` to `mit_b5`, the encoders of SegFormer (Xie et al., 2021, table 6).

Built from transformers' SegFormer configuration, offline. Weights: `hub` (nvidia/mit-bN), a hub
repository `ORG/REPO`, or a file (safetensors or torch), in the layout of the hub's SegFormer
checkpoints; heads are left out by name, any other missing, misshaped or unexpected tensor is an
error that names it. Raises `ConfigError` (transformers not installed) and `CheckpointError`
(weights).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from pipeline.core.hub import fetch_first
from pipeline.errors import CheckpointError, ConfigError
from pipeline.formats.weight_files import read_tensors
from pipeline.modalities import IMAGENET_MEAN, IMAGENET_STD

SIZES: dict[str, tuple[tuple[int, ...], tuple[int, ...]]] = {
    "mit_b0": ((2, 2, 2, 2), (32, 64, 160, 256)),
    "mit_b1": ((2, 2, 2, 2), (64, 128, 320, 512)),
    "mit_b2": ((3, 4, 6, 3), (64, 128, 320, 512)),
    "mit_b3": ((3, 4, 18, 3), (64, 128, 320, 512)),
    "mit_b4": ((3, 8, 27, 3), (64, 128, 320, 512)),
    "mit_b5": ((3, 6, 40, 3), (64, 128, 320, 512)),
}
"""Name to blocks and channels of the four stages."""
HUB_FILES = ("model.safetensors", "pytorch_model.bin")
HEADS = ("classifier.", "decode_head.")
"""Parts of a SegFormer checkpoint outside the encoder."""
_LAYOUTS = (
    (r"^encoder\.patch_embeddings\.(\d+)\.", r"stages.\1.patch_embeddings."),
    (r"^encoder\.block\.(\d+)\.", r"stages.\1.blocks."),
    (r"^encoder\.layer_norm\.(\d+)\.", r"stages.\1.layer_norm."),
    (r"attention\.self\.query\.", "attention.q_proj."),
    (r"attention\.self\.key\.", "attention.k_proj."),
    (r"attention\.self\.value\.", "attention.v_proj."),
    (r"attention\.self\.sr\.", "attention.sequence_reduction.sequence_reduction."),
    (r"attention\.self\.layer_norm\.", "attention.sequence_reduction.layer_norm."),
    (r"attention\.output\.dense\.", "attention.o_proj."),
    (r"mlp\.dense1\.", "mlp.fc1."),
    (r"mlp\.dense2\.", "mlp.fc2."),
    (r"layer_norm_1\.", "layernorm_before."),
    (r"layer_norm_2\.", "layernorm_after."),
)
"""The released checkpoints' names, and those of later transformers, as patterns and replacements."""


class Mit(nn.Module):
    """A Mix Transformer. `forward` gives maps of ceil(H / s) x ceil(W / s) for s = 4, 8, 16, 32."""

    mean = IMAGENET_MEAN
    std = IMAGENET_STD

    def __init__(self, name: str, weights: str) -> None:
        super().__init__()
        depths, channels = SIZES[name]
        self.channels = channels
        self.net = _build(depths, channels)
        if weights != "none":
            path = _weight_file(name, weights)
            state = read_tensors(path, remedy="Check student.weights.")
            load_encoder(self.net, name, state, path)

    def forward(self, images_N3HW: Tensor) -> list[Tensor]:
        """Four maps (N, C_i, H_i, W_i)."""
        output: Any = self.net(images_N3HW, output_hidden_states=True)
        return list(output.hidden_states)


def _build(depths: tuple[int, ...], channels: tuple[int, ...]) -> nn.Module:
    try:
        from transformers import SegformerConfig, SegformerModel
    except ImportError:
        raise ConfigError(
            "student.backbone: mit_b* needs transformers, which is not installed. "
            "Run `pip install transformers`, or choose a timm model."
        ) from None
    config = SegformerConfig(depths=list(depths), hidden_sizes=list(channels))
    model: nn.Module = SegformerModel(config)
    return model


def load_encoder(net: nn.Module, name: str, state: Mapping[str, Tensor], path: Path) -> None:
    """Load a SegFormer checkpoint's encoder strictly. Raises `CheckpointError` naming tensors."""
    tensors = {
        canonical(key): tensor
        for key, tensor in state.items()
        if not key.removeprefix("segformer.").startswith(HEADS)
    }
    own = net.state_dict()
    expected = {canonical(key): key for key in own}
    missing = sorted(set(expected) - set(tensors))
    unexpected = sorted(set(tensors) - set(expected))
    if missing or unexpected:
        raise CheckpointError(
            f"{path}: expected the {len(expected)} tensors of {name}; "
            f"missing {_some(missing)}; unexpected {_some(unexpected)}. "
            f"Give weights of this encoder in student.weights."
        )
    for key, tensor in tensors.items():
        shape = tuple(own[expected[key]].shape)
        if tuple(tensor.shape) != shape:
            raise CheckpointError(
                f"{path}: {name} needs tensor {key} {shape}, found {tuple(tensor.shape)}. "
                f"Give weights of this encoder in student.weights."
            )
    net.load_state_dict({expected[key]: tensor for key, tensor in tensors.items()}, strict=True)


def canonical(key: str) -> str:
    """A tensor's name in the one layout that all others are compared in."""
    key = key.removeprefix("segformer.")
    for pattern, replacement in _LAYOUTS:
        key = re.sub(pattern, replacement, key)
    return key


def _some(names: list[str]) -> str:
    shown = ", ".join(names[:3]) or "none"
    return f"{shown} and {len(names) - 3} more" if len(names) > 3 else shown


def _weight_file(name: str, weights: str) -> Path:
    """A local file, or one fetched from the hub."""
    if weights == "package":
        raise ConfigError(
            f"student.weights: 'package' holds no weights of {name}; expected 'hub', 'none', a hub "
            f"repository or a file"
        )
    path = Path(weights)
    looks_like_a_repository = re.fullmatch(r"[\w.-]+/[\w.-]+", weights) and not path.suffix
    if path.exists() or (weights != "hub" and not looks_like_a_repository):
        return path
    repository = f"nvidia/{name.replace('_', '-')}" if weights == "hub" else weights
    return fetch_first(repository, HUB_FILES, "student.weights")
