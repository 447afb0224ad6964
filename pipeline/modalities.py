"""The modality registry: each kind of sensor with its stored form, value range and teacher tower.

A config names its modalities and gives each a kind; a kind is one row of `KINDS`. The stored form is
what dataset adapters return, shards hold, the teacher preprocesses and the student normalises.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import ConfigError

TowerName = Literal["image", "depth", "thermal"]
Transfer = Literal["linear", "log"]
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
HALF = (0.5, 0.5, 0.5)
QUARTER = (0.25, 0.25, 0.25)

LABEL = "label"
"""Name of the label among the parts of a sample; reserved, no modality may have it."""


@dataclass(frozen=True, slots=True)
class ModalitySpec:
    """One modality as stored and as used. Arrays are (H, W) for one channel, (H, W, 3) for three."""

    kind: str
    channels: Literal[1, 3]
    dtype: Literal["uint8", "uint16"]
    unit: str
    """Unit of a stored value: `code value` or `mm`."""
    max_value: float
    """Stored value that the student sees as 1.0; larger ones saturate there."""
    tower: TowerName
    """LanguageBind tower that embeds it."""
    transfer: Transfer = "linear"
    """Stored value to [0, 1]: `linear` v/max, or `log` log(1 + v/1000) / log(1 + max/1000)."""
    mean: tuple[float, float, float] = HALF
    std: tuple[float, float, float] = QUARTER
    """Student normalisation of the [0, 1] values, per channel."""
    interpolation: Literal["bilinear", "nearest"] = "bilinear"
    """Resampling kernel that keeps the values meaningful (nearest for sparse or coded images)."""

    @classmethod
    def from_json(cls, fields: Mapping[str, Any]) -> ModalitySpec:
        """The inverse of `dataclasses.asdict` and a JSON round trip."""
        values: dict[str, Any] = dict(fields)
        return cls(**{**values, "mean": tuple(values["mean"]), "std": tuple(values["std"])})

    def identity(self) -> dict[str, Any]:
        """The fields that stored bytes and targets depend on (part of fingerprints).

        Without the student's normalisation: changing that must not invalidate shards and targets.
        """
        return {
            "kind": self.kind,
            "channels": self.channels,
            "dtype": self.dtype,
            "unit": self.unit,
            "max_value": self.max_value,
        }


LABEL_SPEC = ModalitySpec(LABEL, 1, "uint8", "class id", 255.0, "image")
"""The stored form of a label: (H, W) class ids."""


def _image(kind: str, channels: Literal[1, 3], tower: TowerName = "image") -> ModalitySpec:
    return ModalitySpec(kind, channels, "uint8", "code value", 255.0, tower)


def _image16(kind: str, tower: TowerName = "image") -> ModalitySpec:
    return ModalitySpec(kind, 1, "uint16", "code value", 65_535.0, tower)


KINDS: dict[str, ModalitySpec] = {
    "rgb": replace(_image("rgb", 3), mean=IMAGENET_MEAN, std=IMAGENET_STD),
    "depth": ModalitySpec("depth", 1, "uint16", "mm", 65_000.0, "depth", "log"),
    "hha": _image("hha", 3),
    "event": replace(_image("event", 3), mean=(0.0, 0.0, 0.0), std=HALF, interpolation="nearest"),
    "lidar": ModalitySpec(
        "lidar",
        1,
        "uint16",
        "mm",
        65_000.0,
        "depth",
        "log",
        mean=(0.0, 0.0, 0.0),
        std=HALF,
        interpolation="nearest",
    ),
    "lidar_image": replace(
        _image("lidar_image", 3), mean=(0.0, 0.0, 0.0), std=HALF, interpolation="nearest"
    ),
    "thermal": _image("thermal", 1, "thermal"),
    "thermal16": _image16("thermal16", "thermal"),
    "nir": _image("nir", 1),
    "nir16": _image16("nir16"),
    "aolp": _image("aolp", 3),
    "dolp": replace(_image16("dolp"), mean=(0.0, 0.0, 0.0), std=HALF),
    "disparity": replace(
        _image16("disparity"), mean=(0.0, 0.0, 0.0), std=HALF, interpolation="nearest"
    ),
    "gray": _image("gray", 1),
    "gray16": _image16("gray16"),
}


def spec_for(kind: str, where: str, **overrides: Any) -> ModalitySpec:
    """The registry row of `kind` with the overrides that are not None.

    Raises `ConfigError` naming `where` and the allowed kinds.
    """
    if kind not in KINDS:
        raise ConfigError(
            f"{where}: unknown kind {kind!r}; expected one of {', '.join(sorted(KINDS))}"
        )
    return replace(KINDS[kind], **{k: v for k, v in overrides.items() if v is not None})


def check_array(array: NDArray[Any], spec: ModalitySpec) -> str | None:
    """None if `array` has the stored form of `spec`, else the expected and the actual form."""
    dims = 2 if spec.channels == 1 else 3
    shape_ok = array.ndim == dims and (dims == 2 or array.shape[2] == 3)
    if shape_ok and array.dtype == np.dtype(spec.dtype):
        return None
    form = "(H, W)" if dims == 2 else "(H, W, 3)"
    return f"expected {form} {spec.dtype}, found {array.shape} {array.dtype}"


def to_unit_range(array: NDArray[Any], spec: ModalitySpec) -> NDArray[np.float32]:
    """Stored values to float32 in [0, 1], same shape; a hole (0) stays 0."""
    values = array.astype(np.float32)
    if spec.transfer == "log":
        scale = np.float32(np.log1p(spec.max_value / 1000.0))
        values = np.log1p(values * np.float32(1e-3)) / scale
    else:
        values *= np.float32(1.0 / spec.max_value)
    return np.minimum(values, np.float32(1.0))
