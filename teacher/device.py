"""Which device the towers run on. Imports torch only to look for an accelerator."""

from __future__ import annotations


def choose_device(name: str) -> str:
    """`auto` is the first accelerator there is, else the processor."""
    if name != "auto":
        return name
    import torch

    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"
