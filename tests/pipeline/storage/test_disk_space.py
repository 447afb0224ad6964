"""What is free; a run that does not fit is refused with figures."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.errors import NotEnoughSpace
from pipeline.storage.disk_space import free_bytes, require_space, required_bytes
from pipeline.storage.files import AnyPath
from pipeline.storage.remote_path import RemotePath


def test_free_bytes_are_those_of_the_nearest_existing_folder(tmp_path: Path) -> None:
    free = free_bytes(tmp_path / "not" / "yet" / "there")
    assert free is not None
    assert free > 0
    remote: AnyPath = RemotePath("s3://bucket", "workspace")
    assert free_bytes(remote) is None


def test_require_space_refuses_with_required_and_free_bytes(tmp_path: Path) -> None:
    with pytest.raises(
        NotEnoughSpace, match=r"targets of 3 units: expected .* EB free \(1\.15 EB and"
    ):
        require_space(tmp_path, 1 << 60, "targets of 3 units")
    require_space(tmp_path, 1000, "a little")
    require_space(RemotePath("s3://bucket", ""), 1 << 60, "much")


def test_zero_bytes_require_no_space() -> None:
    assert required_bytes(0) == 0
    assert required_bytes(1_000_000) > 1_050_000
