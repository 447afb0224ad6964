"""The digest of weights files and its cache."""

from __future__ import annotations

import hashlib
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file

from pipeline.errors import CheckpointError
from teacher.checkpoints.digest import weights_digest


def test_the_digest_is_computed_once_per_file_identity(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, cache = tmp_path / "weights", tmp_path / "cache"
    path.write_bytes(b"one")
    assert weights_digest((path,), cache) == hashlib.sha256(b"one").hexdigest()
    with monkeypatch.context() as patch:
        patch.setattr("teacher.checkpoints.digest.sha256_file", lambda _: pytest.fail("read again"))
        assert weights_digest((path,), cache) == hashlib.sha256(b"one").hexdigest()
    path.write_bytes(b"another")
    assert weights_digest((path,), cache) == hashlib.sha256(b"another").hexdigest()


def test_the_digest_of_shards_is_that_of_their_sha256sum(tmp_path: Path) -> None:
    shards = tuple(tmp_path / f"model-{number:05d}-of-00002.weights" for number in (1, 2))
    for shard in shards:
        shard.write_bytes(shard.name.encode())
    lines = subprocess.run(
        ["sha256sum", *(shard.name for shard in shards)],
        cwd=tmp_path,
        capture_output=True,
        check=True,
    ).stdout
    digest = weights_digest(shards, tmp_path / "cache")
    assert digest == hashlib.sha256(lines).hexdigest()
    assert digest == weights_digest(shards[::-1], tmp_path / "cache")
    shards[1].write_bytes(b"other")
    assert digest != weights_digest(shards, tmp_path / "cache")


def test_a_damaged_cache_costs_only_a_reading(tmp_path: Path) -> None:
    path = tmp_path / "weights"
    path.write_bytes(b"one")
    (tmp_path / "weights.json").write_text("{")
    assert weights_digest((path,), tmp_path) == hashlib.sha256(b"one").hexdigest()
    with pytest.raises(CheckpointError, match="expected a weights file"):
        weights_digest((tmp_path / "nothing",), tmp_path)


def test_safetensors_that_are_cut_short_have_no_digest(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    save_file({"a": np.ones(8, np.float32)}, path)
    whole = path.read_bytes()
    assert weights_digest((path,), tmp_path) == hashlib.sha256(whole).hexdigest()
    path.write_bytes(whole[:-1])
    with pytest.raises(CheckpointError, match=r"model\.safetensors: .* expected \d+ bytes, found"):
        weights_digest((path,), tmp_path)


@pytest.mark.parametrize("content", [[1, 2], {"weight": [1]}], ids=["list", "no tensors"])
def test_a_bin_file_of_something_else_is_refused_before_it_counts(
    tmp_path: Path, content: object
) -> None:
    path = tmp_path / "pytorch_model.bin"
    torch.save(content, path)
    with pytest.raises(CheckpointError, match="expected a flat dict of tensors, found"):
        weights_digest((path,), tmp_path / "cache")
    assert not (tmp_path / "cache").exists()
