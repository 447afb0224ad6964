"""The preprocessing settings of one tower: upstream's by default, every deviation a named field.

Light (no torch): the tower fingerprint covers `Preprocessing.identity()`, and planning a pass must
not load a model. Fails with `ConfigError` for an option that does not exist or does not apply.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import ConfigError
from pipeline.modalities import TowerName
from teacher.checkpoints.hub_config import HubConfig

Picture = NDArray[Any]
"""(H, W) or (H, W, 3), uint8 or uint16; a clip has a leading time axis."""
Waveform = tuple[NDArray[np.float32], int]
"""(C, L) samples in -1..1 and their rate in Hz."""
Sample = Picture | Waveform | str | Path
"""What a tower preprocesses: an array, a waveform with its rate, or a file."""

PREPROCESSING_VERSION = 1
"""Raised when the same settings start to give other pixel values."""

CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)
_PICTURE = ("size_px", "antialias")
FIELDS: dict[TowerName, tuple[str, ...]] = {
    "image": _PICTURE,
    "thermal": _PICTURE,
    "depth": (*_PICTURE, "max_depth_m", "holes"),
    "video": ("size_px", "num_frames"),
    "audio": (
        "num_mel_bins",
        "target_length",
        "sample_rate_hz",
        "audio_mean",
        "audio_std",
        "window_seed",
    ),
}
"""Settings that matter to each tower; the others may be neither given nor fingerprinted."""


@dataclass(frozen=True, slots=True)
class Preprocessing:
    """How stored samples become pixel values for `tower`."""

    tower: TowerName
    size_px: int = 224
    """Input side. Upstream hard-codes 224, the size of every released tower; ours is the config."""
    antialias: bool = False
    """Antialiased resize, as a current torchvision would do; upstream's weights never saw it."""
    max_depth_m: float = 10.0
    """Metric depth that becomes 1.0 and saturates; 0 divides by each picture's own maximum."""
    holes: Literal["upstream", "far"] = "upstream"
    """A depth of 0: 0.01 m as upstream has it, or the largest depth."""
    num_frames: int = 8
    """Frames taken evenly from a clip, first and last included."""
    num_mel_bins: int = 112
    target_length: int = 1036
    """Audio frames of 10 ms; shorter clips are tiled, longer ones give three windows."""
    sample_rate_hz: int = 16000
    audio_mean: float = -4.2677393
    audio_std: float = 4.5689974
    window_seed: int | None = None
    """None: the middle window of each third. An int: upstream's draw from that numpy seed."""

    def identity(self) -> dict[str, Any]:
        """The fields that matter to this tower, JSON-ready."""
        values = asdict(self)
        kept = {field: values[field] for field in FIELDS[self.tower]}
        return {"tower": self.tower, "version": PREPROCESSING_VERSION, **kept}


def preprocessing_for(config: HubConfig, **options: object) -> Preprocessing:
    """The settings that a checkpoint's config implies, with `options` (not None) put on top.

    Raises `ConfigError` for an option that the tower does not have.
    """
    given = {name: value for name, value in options.items() if value is not None}
    allowed = FIELDS[config.modality]
    for name in given:
        if name not in allowed:
            raise ConfigError(
                f"preprocessing of the {config.modality} tower: no option {name!r}; "
                f"expected one of {', '.join(allowed)}"
            )
    values: dict[str, Any] = {**_implied(config), **given}
    return Preprocessing(**values)


def _implied(config: HubConfig) -> dict[str, Any]:
    vision = config.vision
    implied: dict[str, Any] = {"tower": config.modality}
    if config.modality == "audio":
        return implied | {
            "num_mel_bins": int(vision["num_mel_bins"]),
            "target_length": int(vision["target_length"]),
            "sample_rate_hz": int(vision["audio_sample_rate"]),
            "audio_mean": float(vision["audio_mean"]),
            "audio_std": float(vision["audio_std"]),
        }
    implied["size_px"] = config.input_px[0]
    if config.modality == "depth":
        implied["max_depth_m"] = float(vision["max_depth"])
    if config.modality == "video":
        implied["num_frames"] = int(vision["num_frames"])
    return implied
