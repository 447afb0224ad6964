"""What a checkpoint's image processor does to the geometry of an image, from its settings. No torch.

The processor itself is run by `teacher.preprocessing.library_processor`. Here is what planning and the
student need: the size of the pixel values, and which part of an image they show. Everything downstream
(views, the grid of dense targets) lives in the centred square of an image:

- Shorter side to S, then a centre crop of C: the square's central share `field` = C / S. 1 for CLIP;
  0.875 for DINOv2, whose processor resizes to 256 and crops 224.
- A resize to height x width squashes whatever it is given. It is given the centred square, so that a
  square image is processed exactly as the library does, and another one is not distorted.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pipeline.errors import CheckpointError
from teacher.checkpoints.config_fields import shown
from teacher.checkpoints.json_file import JsonDict

PROCESSING_VERSION = 1
"""Increment it when the same settings start to give other pixel values."""
_CROPPING: JsonDict = {"size": {"shortest_edge": 224}, "do_center_crop": True, "crop_size": 224}
_SQUASHING: JsonDict = {"size": {"height": 224, "width": 224}, "do_center_crop": False}
DEFAULTS: Mapping[str, JsonDict] = {
    "CLIPImageProcessor": _CROPPING,
    "BitImageProcessor": _CROPPING,
    "SiglipImageProcessor": _SQUASHING,
    "DINOv3ViTImageProcessor": _SQUASHING,
    "ViTImageProcessor": _SQUASHING,
}
"""Geometry of transformers' processors where a file does not state it; the families' own processors."""
_NOISE = ("_processor_class", "processor_class", "transformers_version", "_name_or_path")


@dataclass(frozen=True, slots=True)
class Processing:
    """Geometry of one checkpoint's image processor."""

    settings: JsonDict
    """As stored in the checkpoint."""
    size_px: int
    """Side of the pixel values."""
    field: float = 1.0
    """Side of what they show, as a share of the centred square's."""
    squashes: bool = False
    """Whether it distorts what is not square, and so is given the centred square."""

    def identity(self) -> dict[str, Any]:
        """What pixel values depend on, JSON-ready."""
        settings = {key: value for key, value in self.settings.items() if key not in _NOISE}
        part = {} if self.field == 1.0 else {"field": self.field}
        return {"tower": "image", "version": PROCESSING_VERSION, "processor": settings, **part}


def processing_of(settings: JsonDict, where: str) -> Processing:
    """The geometry that a processor's settings describe.

    Raises `CheckpointError` for a processor whose output is not a square of one size.
    """
    complete = {**DEFAULTS.get(processor_class(settings), {}), **settings}
    if not complete.get("do_resize", True):
        raise _not_square(where, "do_resize", False)
    size, crop = _size(complete.get("size"), complete), None
    if complete.get("do_center_crop"):
        crop = _square(complete.get("crop_size"))
        if crop is None:
            raise _not_square(where, "crop_size", complete.get("crop_size"))
    if size is None or (size[1] is False and crop is None):
        raise _not_square(where, "size", complete.get("size"))
    side, squashes = size
    return Processing(settings, crop or side, (crop or side) / side, squashes)


def processor_class(settings: Mapping[str, Any]) -> str:
    """`CLIPImageProcessor` for every spelling of it: `...Fast`, `...Pil`, `CLIPFeatureExtractor`."""
    name = settings.get("image_processor_type") or settings.get("feature_extractor_type") or ""
    plain = str(name).removesuffix("Fast").removesuffix("Pil")
    return plain.replace("FeatureExtractor", "ImageProcessor")


def _size(value: object, settings: Mapping[str, Any]) -> tuple[int, bool] | None:
    """(side, whether both sides are set to it); None for a size that is neither."""
    if isinstance(value, dict) and set(value) == {"shortest_edge"}:
        side = _square(value["shortest_edge"])
        return None if side is None else (side, False)
    side = _square(value)
    if side is None:
        return None
    # A bare number is the shorter side, but for processors that default to squares.
    return side, isinstance(value, dict) or processor_class(settings) == "ViTImageProcessor"


def _square(value: object) -> int | None:
    if isinstance(value, dict) and set(value) == {"height", "width"}:
        return _square(value["height"]) if value["height"] == value["width"] else None
    whole = isinstance(value, int) and not isinstance(value, bool)
    return value if whole and 1 <= value <= 1 << 14 else None  # type: ignore[operator,return-value]


def _not_square(where: str, field: str, value: object) -> CheckpointError:
    return CheckpointError(
        f"{where}: image processor: {field}: expected settings that give square pixel values of one "
        f"size, found {shown(value)}. Set it in preprocessor_config.json, e.g. "
        '"size": {"shortest_edge": 224}, "do_center_crop": true, "crop_size": 224.'
    )
