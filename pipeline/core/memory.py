"""Whether an error says that memory did not suffice. No torch: allocators are known by their words."""

from __future__ import annotations

_OUT_OF_MEMORY = ("out of memory", "allocate memory", "not enough memory", "ALLOC_FAILED")
"""How allocators say it: CUDA and MPS, PyTorch on the processor (Linux, Windows), cuBLAS."""


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory, of the device or the host, did not suffice."""
    return isinstance(error, MemoryError) or any(sign in str(error) for sign in _OUT_OF_MEMORY)
