"""What the operating system decides: that a child ends with its parent, and that memory runs out.

A killed run must leave no process behind that still writes to the workspace. No torch: allocators are
recognised by their messages.
"""

from __future__ import annotations

import ctypes
import signal
import sys

_PR_SET_PDEATHSIG = 1
_OUT_OF_MEMORY = ("out of memory", "allocate memory", "not enough memory", "ALLOC_FAILED")
"""Messages of CUDA and MPS, PyTorch on the processor (Linux, Windows), cuBLAS."""


def die_with_parent() -> None:
    """Call in a child: on Linux the kernel ends it when the thread that started it ends, however it ends.

    Elsewhere it does nothing. Use as `subprocess.Popen(preexec_fn=...)` or a pool's initializer.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that the device or the host ran out of memory."""
    return isinstance(error, MemoryError) or any(sign in str(error) for sign in _OUT_OF_MEMORY)
