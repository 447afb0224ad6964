"""The header of a safetensors file, read without torch and without any tensor.

The file is 8 bytes of length (little endian), a JSON header of that length, the tensors' bytes. The
header names each tensor's place and, under `__metadata__`, texts; ours is a JSON state under
`METADATA_KEY`. Whatever is not whole is a `ValueError`.
"""

from __future__ import annotations

import json
from io import BytesIO
from typing import Any, BinaryIO

from pipeline.storage.files import AnyPath

LENGTH_BYTES = 8
MAX_HEADER_BYTES = 100 << 20
"""A longer one is damage; the format's own limit."""
METADATA_KEY = "any2seg"
"""Key of the JSON state in the metadata."""


def read_state(path: AnyPath) -> dict[str, Any]:
    """The JSON state of a file; empty if it has none. `ValueError` if the file is not whole."""
    size = path.stat().st_size
    with path.open("rb") as file:
        return _state(file, size)


def state_in(data: bytes) -> dict[str, Any]:
    """The same of a file's bytes."""
    return _state(BytesIO(data), len(data))


def _state(file: BinaryIO, size: int) -> dict[str, Any]:
    length = int.from_bytes(file.read(LENGTH_BYTES), "little")
    if not 0 < length <= min(size, MAX_HEADER_BYTES):
        raise ValueError(f"expected a safetensors header, found {length} bytes of it")
    header = json.loads(file.read(length))
    try:
        metadata = header.pop("__metadata__", {})
        ends = [entry["data_offsets"][1] for entry in header.values()]
        whole = LENGTH_BYTES + length + max(ends, default=0)
        state = dict(json.loads(metadata.get(METADATA_KEY, "{}")))
    except (AttributeError, KeyError, TypeError, IndexError) as error:
        raise ValueError(f"expected a safetensors header, found another: {error!r}") from None
    if size != whole:
        raise ValueError(f"expected {whole} bytes, found {size}")
    return state
