"""Corrupted sensor inputs, as the robustness benchmark of Liao et al. makes them (arXiv 2503.18445,
`val_mm_EMM.py`, `val_mm_RMM.py`, `val_mm_NM.py`), with their gaps closed.

All of them act on the normalised input of the network, one sample at a time. Kept from the benchmark:
elements (pixel and channel apart) are lost, not pixels; salt and pepper is the tensor's own largest
and smallest value at element indices drawn with replacement; events get no Gaussian noise. Ours:
random numbers come from (seed, kind of corruption, level, sample key, modality), so a score depends
neither on the batch nor on the order; largest and smallest are those of the sample, where the
benchmark takes those of the batch.

Legend: C channels, H W space.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

LOST_SHARES = (0.25, 0.5, 0.75)
"""RMM: share r of the elements of a missing modality that is lost; 0.75 is the hardest."""


@dataclass(frozen=True, slots=True)
class NoiseLevel:
    """NM: how strong the noise is."""

    name: str
    density: float
    """Share of the elements that salt and pepper draws, half of it each."""
    sigma: float
    """Standard deviation of the Gaussian noise, in normalised units."""


NOISE_LEVELS = (
    NoiseLevel("low", 0.05, 0.1),
    NoiseLevel("mid", 0.1, 0.2),
    NoiseLevel("high", 0.2, 0.5),
)


def generator(seed: int, *what: str) -> np.random.Generator:
    """Random numbers for one use, named by `what` (kind, level, sample key, modality)."""
    digest = hashlib.sha256("\0".join(what).encode()).digest()
    return np.random.default_rng([seed, *_words(digest)])


def _words(digest: bytes) -> Iterator[int]:
    return (int.from_bytes(digest[i : i + 4], "little") for i in range(0, 16, 4))


def lose_elements(input_CHW: Tensor, share: float, rng: np.random.Generator) -> Tensor:
    """Each element set to 0 with probability `share` (RMM)."""
    lost = rng.random(tuple(input_CHW.shape), dtype=np.float32) < share
    return input_CHW.masked_fill(torch.from_numpy(lost).to(input_CHW.device), 0.0)


def add_noise(
    input_CHW: Tensor, level: NoiseLevel, gaussian: bool, rng: np.random.Generator
) -> Tensor:
    """Salt, then pepper, then (for all but events) Gaussian noise (NM)."""
    flat = input_CHW.flatten().clone()
    highest, lowest = float(flat.max()), float(flat.min())
    num_each = int(level.density * flat.numel() / 2)
    for value in (highest, lowest):
        drawn = torch.from_numpy(rng.integers(0, flat.numel(), num_each)).to(flat.device)
        flat[drawn] = value
    if gaussian:
        noise = rng.standard_normal(flat.numel(), dtype=np.float32) * np.float32(level.sigma)
        flat += torch.from_numpy(noise).to(flat.device)
    return flat.view(input_CHW.shape)
