"""Captions composed from an image's label map.

`Content` is what a crop shows: the area and the centre of each class. `describe` words it at random;
without any class the caption names only the condition.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from teacher.tiny.lexicon import CLASSES, CONDITIONS

MAX_MENTIONS = 7
MIN_AREA = 0.002

_PHRASES: dict[str, tuple[str, ...]] = {
    "cloud": ("on a cloudy day", "under an overcast sky", "in cloudy weather"),
    "fog": ("in fog", "on a foggy day", "in thick fog"),
    "night": ("at night", "in the dark", "on a dark night"),
    "rain": ("in the rain", "on a rainy day", "in wet weather"),
    "sun": ("on a sunny day", "in bright sunshine", "in clear weather"),
}
_OPENINGS = (
    "a street scene{} with {}.",
    "a photo of a street{}: {}.",
    "a driving scene{} showing {}.",
    "{}, {}.",
)


@dataclass(frozen=True, slots=True)
class Content:
    """What an image shows: per class its share of the pixels and its centre, left 0 to right 1."""

    areas: NDArray[np.float32]
    centres: NDArray[np.float32]
    condition: str | None

    def vector(self) -> NDArray[np.float32]:
        """Root areas, signed root areas by side, one-hot condition: (2K + 5,)."""
        root = np.sqrt(self.areas)
        weather = np.array([self.condition == name for name in CONDITIONS], np.float32)
        return np.concatenate([root, root * (2.0 * self.centres - 1.0), weather])


def mentioned_classes(content: Content) -> list[int]:
    """Class ids large enough to be named, largest first."""
    order = np.argsort(-content.areas, kind="stable")[:MAX_MENTIONS]
    return [int(index) for index in order if content.areas[index] >= MIN_AREA]


def describe(content: Content, rng: np.random.Generator) -> str:
    """One caption of the content, worded at random."""
    mentions = [_mention(content, index, rng) for index in mentioned_classes(content)]
    opening = _OPENINGS[rng.integers(len(_OPENINGS))]
    condition = ""
    if content.condition is not None:
        wordings = _PHRASES[content.condition]
        condition = " " + wordings[rng.integers(len(wordings))]
    return opening.format(condition, _join(mentions) if mentions else "nothing").strip(" ,")


def random_content(rng: np.random.Generator) -> Content:
    """A random content: it breaks the correlations of classes that usually occur together."""
    num = int(rng.integers(1, 9))
    areas = np.zeros(len(CLASSES), np.float32)
    chosen = rng.choice(len(CLASSES), num, replace=False)
    areas[chosen] = rng.dirichlet(np.full(num, 0.7))
    names = [*CONDITIONS, None]
    condition = names[rng.integers(len(names))]
    return Content(areas, rng.random(len(CLASSES)).astype(np.float32), condition)


def _mention(content: Content, index: int, rng: np.random.Generator) -> str:
    names = CLASSES[index].names
    words = names[rng.integers(len(names))] if rng.random() < 0.3 else names[0]
    area, centre = content.areas[index], content.centres[index]
    if area > 0.35:
        words = f"mostly {words}"
    elif area < 0.02:
        words = f"a little {words}"
    if area < 0.25 and abs(centre - 0.5) > 0.2:
        words += " on the left" if centre < 0.5 else " on the right"
    return words


def _join(parts: list[str]) -> str:
    return parts[0] if len(parts) == 1 else ", ".join(parts[:-1]) + " and " + parts[-1]
