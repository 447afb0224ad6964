"""Class prompts: named template sets, and class embeddings as upstream ensembles them.

Per class: every template is embedded and normalised, the mean is taken and normalised again. The
single prompts are kept beside the mean. Template texts are those of upstream's evaluation code
(OpenAI's 80 ImageNet templates and their depth variant) plus our own for driving scenes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import ConfigError

if TYPE_CHECKING:
    from teacher.contract import LoadedText

_PHOTOS = [
    "bad photo of a",
    "photo of many",
    "photo of the hard to see",
    "low resolution photo of the",
    "bad photo of the",
    "cropped photo of the",
    "photo of a hard to see",
    "bright photo of a",
    "photo of a clean",
    "photo of a dirty",
    "dark photo of the",
    "photo of my",
    "photo of the cool",
    "close-up photo of a",
    "black and white photo of the",
    "pixelated photo of the",
    "bright photo of the",
    "cropped photo of a",
    "photo of the dirty",
    "jpeg corrupted photo of a",
    "blurry photo of the",
    "photo of the",
    "good photo of the",
    "photo of one",
    "close-up photo of the",
    "photo of a",
    "low resolution photo of a",
    "photo of the clean",
    "photo of a large",
    "photo of a nice",
    "photo of a weird",
    "blurry photo of a",
    "pixelated photo of a",
    "jpeg corrupted photo of the",
    "good photo of a",
    "photo of the nice",
    "photo of the small",
    "photo of the weird",
    "photo of the large",
    "black and white photo of a",
    "dark photo of a",
    "photo of a cool",
    "photo of a small",
]
_OTHERS = [
    "a sculpture of a {}.",
    "a rendering of a {}.",
    "graffiti of a {}.",
    "a tattoo of a {}.",
    "the embroidered {}.",
    "a drawing of a {}.",
    "the plastic {}.",
    "a painting of the {}.",
    "a painting of a {}.",
    "a sculpture of the {}.",
    "a plastic {}.",
    "a rendering of the {}.",
    "a {} in a video game.",
    "a doodle of a {}.",
    "the origami {}.",
    "the {} in a video game.",
    "a sketch of a {}.",
    "a doodle of the {}.",
    "a origami {}.",
    "the toy {}.",
    "a rendition of the {}.",
    "a rendition of a {}.",
    "a cartoon {}.",
    "art of a {}.",
    "a sketch of the {}.",
    "a embroidered {}.",
    "itap of the {}.",
    "a plushie {}.",
    "the cartoon {}.",
    "art of the {}.",
    "a drawing of the {}.",
    "the plushie {}.",
    "itap of a {}.",
    "graffiti of the {}.",
    "a toy {}.",
    "itap of my {}.",
    "a tattoo of the {}.",
]
_IMAGENET = (*(f"a {photo} {{}}." for photo in _PHOTOS), *_OTHERS)
_DRIVING = (
    "a photo of a {} in a street scene.",
    "a photo of the {} seen from a car.",
    "a dashcam photo of the {}.",
    "a photo of the {} on a cloudy day.",
    "a photo of the {} in bright sunlight.",
    "a photo of the {} at night.",
    "a photo of the {} in the rain.",
    "a photo of the {} in fog.",
    "a cropped photo of the {} by the road.",
    "a blurry photo of the {} in traffic.",
)

TEMPLATES: dict[str, tuple[str, ...]] = {
    "photo": ("a photo of a {}.",),
    "imagenet-80": _IMAGENET,
    "depth": tuple(t.replace("photo", "depth photo") for t in _IMAGENET),
    "thermal": tuple(t.replace("photo", "thermal infrared photo") for t in _IMAGENET),
    "driving": _DRIVING,
}
"""Upstream's thermal evaluation uses `imagenet-80`; it defines `thermal` and never uses it."""


@dataclass(frozen=True, slots=True)
class ClassPrompts:
    """Embedded prompts of K classes and T templates."""

    class_embedding: NDArray[np.float32]
    """(K, E) unit-norm ensemble of each class."""
    prompt_embedding: NDArray[np.float32]
    """(K, T, E) unit-norm single prompts."""


def templates(name: str) -> tuple[str, ...]:
    """The template set called `name`, or `ConfigError`; each template has one `{}` for the class."""
    if name not in TEMPLATES:
        raise ConfigError(
            f"teacher.templates: expected one of {', '.join(TEMPLATES)}, found {name!r}"
        )
    return TEMPLATES[name]


def embed_classes(text: LoadedText, classes: Sequence[str], template_set: str) -> ClassPrompts:
    """Embed every class in every template of the set, and ensemble them per class."""
    chosen = templates(template_set)
    prompts = [template.format(name) for name in classes for template in chosen]
    rows = text.encode(prompts).cpu().numpy().astype(np.float32)
    prompt_KTE = rows.reshape(len(classes), len(chosen), -1)
    mean_KE = prompt_KTE.mean(axis=1)
    class_KE = mean_KE / np.linalg.norm(mean_KE, axis=1, keepdims=True)
    return ClassPrompts(class_KE, prompt_KTE)
