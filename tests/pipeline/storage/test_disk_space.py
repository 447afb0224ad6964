"""What is free; a run that does not fit is refused with figures."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.errors import NotEnoughSpace
from pipeline.storage.disk_space import as_bytes, free_bytes, require_space, required_bytes
from pipeline.storage.files import AnyPath
from pipeline.storage.remote_path import RemotePath


def test_what_is_free_is_asked_of_the_nearest_folder(tmp_path: Path) -> None:
    free = free_bytes(tmp_path / "not" / "yet" / "there")
    assert free is not None
    assert free > 0
    remote: AnyPath = RemotePath("s3://bucket", "workspace")
    assert free_bytes(remote) is None


def test_too_much_is_refused_with_the_figures(tmp_path: Path) -> None:
    with pytest.raises(
        NotEnoughSpace, match=r"targets of 3 units: expected .* TB free \(1152921\.5 TB and"
    ):
        require_space(tmp_path, 1 << 60, "targets of 3 units")
    require_space(tmp_path, 1000, "a little")
    require_space(RemotePath("s3://bucket", ""), 1 << 60, "much")


def test_nothing_to_write_needs_no_room() -> None:
    assert required_bytes(0) == 0
    assert required_bytes(1_000_000) > 1_050_000


@pytest.mark.parametrize(
    ("number", "text"),
    [(812, "812 B"), (1234, "1.2 kB"), (5e6, "5.0 MB"), (34e9, "34.0 GB"), (2e15, "2000.0 TB")],
)
def test_bytes_for_people(number: float, text: str) -> None:
    assert as_bytes(number) == text
