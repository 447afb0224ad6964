"""Where torch computes: the device and the number of threads. Imports torch when called."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

from pipeline.errors import ConfigError

DeviceName = Literal["auto", "cpu", "cuda", "mps"]
"""What a config may ask for."""


def choose_device(name: str) -> str:
    """`name` (`cpu`, `mps`, `cuda`, `cuda:1`, ...), or for `auto` the first of CUDA, MPS and CPU.

    Raises `ConfigError` for a kind of device that is not available here.
    """
    import torch

    available = {
        "cuda": torch.cuda.is_available(),
        "mps": torch.backends.mps.is_available(),
        "cpu": True,
    }
    kinds = [kind for kind, is_available in available.items() if is_available]
    if name == "auto":
        return kinds[0]
    if name.partition(":")[0] not in kinds:
        raise ConfigError(
            f"device = {name!r}: not available here; expected one of: auto, {', '.join(kinds)}"
        )
    return name


@contextmanager
def threads(count: int) -> Iterator[None]:
    """Compute with `count` threads for the block; 0 leaves PyTorch's choice."""
    import torch

    before = torch.get_num_threads()
    if count:
        torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
