"""Lengths of objects are exact; a run that does not fit is refused with figures."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from pipeline.errors import NotEnoughSpace
from pipeline.storage.disk_space import (
    free_bytes,
    object_bytes,
    require_space,
    required_bytes,
)
from pipeline.storage.files import AnyPath
from pipeline.storage.remote_path import RemotePath
from pipeline.targets.store import TargetProvenance, TargetStore


@pytest.mark.parametrize("dtype", ["float16", "float32"])
@pytest.mark.parametrize("shard_size", [4, 16, 48])
def test_an_object_is_as_long_as_said(tmp_path: Path, dtype: str, shard_size: int) -> None:
    outputs = {"embedding": (12,), "patch": (5, 12), "view_box": (3, 5)}
    provenance = TargetProvenance.model_validate(
        {
            "modality": "rgb",
            "teacher": "t",
            "spec": {},
            "tower": {},
            "outputs": outputs,
            "dtype": dtype,
            "shard_size": shard_size,
        }
    )
    store = TargetStore.planned(tmp_path, provenance)
    found = {
        output: len(store.array("train", output).encode(np.ones((2, *shape))))
        for output, shape in outputs.items()
    }
    assert object_bytes(provenance) == found


def test_what_is_free_is_asked_of_the_nearest_folder(tmp_path: Path) -> None:
    free = free_bytes(tmp_path / "not" / "yet" / "there")
    assert free is not None
    assert free > 0
    remote: AnyPath = RemotePath("s3://bucket", "workspace")
    assert free_bytes(remote) is None


def test_too_much_is_refused_with_the_figures(tmp_path: Path) -> None:
    with pytest.raises(
        NotEnoughSpace, match=r"targets of 3 units: expected .* EB free \(1\.15 EB and"
    ):
        require_space(tmp_path, 1 << 60, "targets of 3 units")
    require_space(tmp_path, 1000, "a little")
    require_space(RemotePath("s3://bucket", ""), 1 << 60, "much")


def test_nothing_to_write_needs_no_room() -> None:
    assert required_bytes(0) == 0
    assert required_bytes(1_000_000) > 1_050_000
