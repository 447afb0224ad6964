"""The learning rate at a step. Pure functions; nothing can fail."""

from __future__ import annotations

import math
from typing import Literal

Decay = Literal["poly", "cosine"]
POLY_POWER = 0.9


def learning_rate(lr: float, step: int, steps: int, warmup_steps: int, decay: Decay) -> float:
    """Rate of `step` (counted from 0) of `steps`: linear warm-up times a decay that ends at 0.

    `poly`: (1 - step / steps) ** 0.9, as SegFormer and CMNeXt train; `cosine`: half a cosine
    (Loshchilov and Hutter, 2017, without restarts).
    """
    warm = min(1.0, (step + 1) / warmup_steps) if warmup_steps else 1.0
    done = step / steps
    falling = (1 - done) ** POLY_POWER if decay == "poly" else (1 + math.cos(math.pi * done)) / 2
    return lr * warm * falling
