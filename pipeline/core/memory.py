"""Whether an error means out of memory. Allocators are recognised by their messages, without torch."""

from __future__ import annotations

_OUT_OF_MEMORY = ("out of memory", "allocate memory", "not enough memory", "ALLOC_FAILED")
"""Parts of their messages: CUDA and MPS, PyTorch on the CPU (Linux, Windows), cuBLAS."""


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error means that the device or the host is out of memory."""
    return isinstance(error, MemoryError) or any(sign in str(error) for sign in _OUT_OF_MEMORY)
