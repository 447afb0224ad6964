"""Cheap random draws for layout code: one numpy stream, handed out float by float.

A scalar draw from a numpy Generator costs about a microsecond; a scene needs thousands.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from typing import TypeVar

import numpy as np

T = TypeVar("T")
_BLOCK = 2048


class Dice:
    """Draws that depend on the generator's state alone."""

    def __init__(self, rng: np.random.Generator) -> None:
        self._rng = rng
        self._values: list[float] = []

    def unit(self) -> float:
        """Uniform in [0, 1)."""
        if not self._values:
            self._values = self._rng.random(_BLOCK).tolist()
        return self._values.pop()

    def between(self, low: float, high: float) -> float:
        """Uniform in [low, high)."""
        return low + (high - low) * self.unit()

    def chance(self, probability: float) -> bool:
        """True with this probability."""
        return self.unit() < probability

    def sign(self) -> int:
        """-1 or 1."""
        return 1 if self.unit() < 0.5 else -1

    def pick(self, options: Sequence[T]) -> T:
        """One of the options, each as likely."""
        return options[int(self.unit() * len(options))]

    def weighted(self, options: dict[T, float]) -> T:
        """One of the keys, in proportion to its value."""
        target = self.unit() * sum(options.values())
        sums = accumulate(options.values())
        return next(key for key, total in zip(options, sums, strict=True) if target < total)
