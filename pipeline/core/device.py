"""Where the student computes: device and threads. Writes nothing; `ConfigError` for an absent
device."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from pipeline.errors import ConfigError


def pick_device(name: str) -> torch.device:
    """The device of a config; `auto` takes CUDA, then MPS, then the CPU."""
    found = {
        "cuda": torch.cuda.is_available(),
        "mps": torch.backends.mps.is_available(),
        "cpu": True,
    }
    if name == "auto":
        name = next(device for device, there in found.items() if there)
    if not found[name]:
        there = ", ".join(device for device, is_there in found.items() if is_there)
        raise ConfigError(f"train.device: {name} is not available here; expected one of: {there}")
    return torch.device(name)


@contextmanager
def threads(count: int) -> Iterator[None]:
    """Compute with `count` threads for the block; 0 leaves PyTorch's choice."""
    before = torch.get_num_threads()
    if count:
        torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
