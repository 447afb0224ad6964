"""The learning rate at a step."""

from __future__ import annotations

import math
from typing import Literal

Decay = Literal["poly", "cosine"]
POLY_POWER = 0.9


def learning_rate(lr: float, step: int, steps: int, warmup_steps: int, decay: Decay) -> float:
    """Learning rate of `step` (from 0) of `steps`: linear warm-up times a decay that ends at 0.

    `poly`: (1 - step / steps) ** 0.9, as SegFormer and CMNeXt train; `cosine`: half a cosine
    (Loshchilov and Hutter, 2017, without restarts).
    """
    warmup = min(1.0, (step + 1) / warmup_steps) if warmup_steps else 1.0
    progress = step / steps
    poly, cosine = (1 - progress) ** POLY_POWER, (1 + math.cos(math.pi * progress)) / 2
    return lr * warmup * (poly if decay == "poly" else cosine)
