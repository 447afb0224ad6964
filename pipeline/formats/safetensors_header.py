"""The header of a safetensors file, read without torch and without the tensors.

The file is 8 bytes of length (little endian), a JSON header of that length, the tensors' bytes. The
header holds each tensor's offsets and, under `__metadata__`, strings; ours is a JSON state under
`METADATA_KEY`. A truncated or foreign file is a `ValueError`.
"""

from __future__ import annotations

import json
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO

from pipeline.formats.foreign_file import file_form
from pipeline.storage.files import AnyPath

LENGTH_BYTES = 8
MAX_HEADER_BYTES = 100 << 20
"""The format's own limit; a longer header is corrupted."""
METADATA_KEY = "any2seg"
"""Key of the JSON state in the metadata."""


def read_state(path: AnyPath) -> dict[str, Any]:
    """The JSON state of a file; empty if it has none. `ValueError` if the file is truncated."""
    size = path.stat().st_size
    with path.open("rb") as file:
        return _state(file, size)


def header_problem(path: Path) -> str | None:
    """What a local file is that is no whole safetensors file; None if it is one. Tensors are not read."""
    form = file_form(path)
    if form and "safetensors" not in form:
        return form
    try:
        read_state(path)
    except (ValueError, RecursionError, MemoryError) as problem:
        line = (str(problem).strip().splitlines() or ["no reason given"])[0]
        return f"a corrupted file ({type(problem).__name__}: {line})"
    return None


def state_in(data: bytes) -> dict[str, Any]:
    """`read_state` of a file's bytes."""
    return _state(BytesIO(data), len(data))


def _state(file: BinaryIO, size: int) -> dict[str, Any]:
    length = int.from_bytes(file.read(LENGTH_BYTES), "little")
    if not 0 < length <= min(size, MAX_HEADER_BYTES):
        raise ValueError(f"expected a safetensors header, found {length} bytes of it")
    header = json.loads(file.read(length))
    try:
        metadata = header.pop("__metadata__", {})
        ends = [entry["data_offsets"][1] for entry in header.values()]
        # The end of the last tensor gives the file's length, so a truncated file shows without a read.
        whole = LENGTH_BYTES + length + max(ends, default=0)
        state = dict(json.loads(metadata.get(METADATA_KEY, "{}")))
    except (AttributeError, KeyError, TypeError, IndexError) as error:
        raise ValueError(f"expected a safetensors header, found: {error!r}") from None
    if size != whole:
        raise ValueError(f"expected {whole} bytes, found {size}")
    return state
