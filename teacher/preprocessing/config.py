"""Preprocessing of one tower: upstream's by default, every deviation a named field.

No torch: the tower fingerprint covers `Preprocessing.identity()`, and planning loads no model.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from numpy.typing import NDArray

from pipeline.errors import ConfigError
from pipeline.modalities import TowerName
from teacher.checkpoints.hub_config import HubConfig

ImageArray = NDArray[Any]
"""(H, W) or (H, W, 3), uint8 or uint16."""
Sample = ImageArray | str | Path
"""Input of a tower's preprocessing: an array or an image file."""

PREPROCESSING_VERSION = 1
"""Increment it when the same fields start to give other pixel values."""

CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)
_COMMON = ("size_px", "antialias")
FIELDS: dict[TowerName, tuple[str, ...]] = {
    "image": _COMMON,
    "thermal": _COMMON,
    "depth": (*_COMMON, "max_depth_m", "holes"),
}
"""Fields that apply to each tower; the others can be neither given nor fingerprinted."""


@dataclass(frozen=True, slots=True)
class Preprocessing:
    """How stored samples become pixel values for `tower`."""

    tower: TowerName
    size_px: int = 224
    """Input side, from the config. Upstream hard-codes 224, the size of every released tower."""
    antialias: bool = False
    """Antialiased resize, as torchvision does since 0.17; upstream trained without it."""
    max_depth_m: float = 10.0
    """Metric depth that becomes 1.0 and saturates; 0 divides by each image's own maximum."""
    holes: Literal["upstream", "far"] = "upstream"
    """A depth of 0: 0.01 m as upstream has it, or the largest depth."""

    def identity(self) -> dict[str, Any]:
        """The fields that apply to this tower, JSON-ready."""
        values = asdict(self)
        kept = {field: values[field] for field in FIELDS[self.tower]}
        return {"tower": self.tower, "version": PREPROCESSING_VERSION, **kept}


def preprocessing_for(config: HubConfig, **options: object) -> Preprocessing:
    """The preprocessing that a checkpoint's config implies, overridden by `options` that are not None.

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
    implied: dict[str, Any] = {"tower": config.modality, "size_px": config.input_px[0]}
    if config.modality == "depth":
        implied["max_depth_m"] = float(config.vision["max_depth"])
    return implied
