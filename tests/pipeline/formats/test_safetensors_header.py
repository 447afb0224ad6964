"""The state in a safetensors file: read without a tensor, and only if the file is whole."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save

from pipeline.formats.safetensors_header import METADATA_KEY, read_state, state_in

STATE = {"step": 4, "identity": {"seed": 1}}
WHOLE = save(
    {"a": np.arange(600, dtype=np.float32), "b": np.ones((2, 3), np.float16)},
    metadata={METADATA_KEY: json.dumps(STATE)},
)


def with_header(header: object, rest: bytes = b"") -> bytes:
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + rest


def test_read_state_of_a_file_that_safetensors_wrote(tmp_path: Path) -> None:
    (tmp_path / "a.safetensors").write_bytes(WHOLE)
    assert read_state(tmp_path / "a.safetensors") == STATE
    assert state_in(WHOLE) == STATE
    assert state_in(save({"a": np.ones(2)})) == {}


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xff" * 40,
        b"\x00" * 64,
        WHOLE[:-1],
        WHOLE + b"0",
        WHOLE[:20],
        with_header([]),
        with_header({"a": 3}),
        with_header({"a": {"data_offsets": []}}),
        with_header({"__metadata__": {METADATA_KEY: "3"}}),
        with_header({"__metadata__": {METADATA_KEY: "{"}}),
        with_header({"__metadata__": [1]}),
        (200 << 20).to_bytes(8, "little") + b"{}",
    ],
    ids=lambda data: repr(data[:30]),
)
def test_a_truncated_or_foreign_file_is_refused(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "a.safetensors").write_bytes(data)
    for read in (lambda: read_state(tmp_path / "a.safetensors"), lambda: state_in(data)):
        with pytest.raises(ValueError, match="expected|Expecting"):
            read()
