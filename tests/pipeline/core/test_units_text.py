"""Numbers with units, as people read them."""

from __future__ import annotations

import pytest

from pipeline.core.units_text import as_duration, as_percent, as_size


def test_as_percent() -> None:
    assert [as_percent(share) for share in (0.0, 0.3729, 1.0, None)] == [
        "0.0",
        "37.3",
        "100.0",
        "-",
    ]


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.04, "0.0 s"), (9.4, "9.4 s"), (59.4, "59 s"), (59.6, "1 min 00 s"), (185, "3 min 05 s"),
     (3599.7, "1 h 00 min"), (7800, "2 h 10 min"), (172_799, "47 h 59 min"),
     (198_720, "2 d 07 h")],
)  # fmt: skip
def test_as_duration(seconds: float, text: str) -> None:
    assert as_duration(seconds) == text


@pytest.mark.parametrize(
    ("num_bytes", "text"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1 kB"),
        (3_140_000, "3.14 MB"),
        (999_999, "1 MB"),
        (34e9, "34 GB"),
        (2e15, "2 PB"),
    ],
)
def test_as_size(num_bytes: float, text: str) -> None:
    assert as_size(num_bytes) == text
