"""One function over many items: order, errors, and workers that die."""

from __future__ import annotations

import os

import pytest

from pipeline.errors import Any2SegError
from pipeline.parallel import count_workers, map_in_order


def square(number: int) -> int:
    return number * number


def failing(number: int) -> int:
    if number == 20:
        raise ZeroDivisionError
    return number


def dying(number: int) -> int:
    if number == 20:
        os._exit(1)
    return number


@pytest.mark.parametrize("workers", [1, 2])
def test_results_are_in_order(workers: int) -> None:
    assert list(map_in_order(square, range(40), workers)) == [n * n for n in range(40)]


@pytest.mark.parametrize("workers", [1, 2])
def test_an_error_passes_through_in_its_place(workers: int) -> None:
    results = map_in_order(failing, range(40), workers)
    assert [next(results) for _ in range(20)] == list(range(20))
    with pytest.raises(ZeroDivisionError):
        next(results)


def test_a_dying_worker_is_an_error_with_a_way_out() -> None:
    with pytest.raises(Any2SegError, match=r"died .*prepare.workers=1"):
        list(map_in_order(dying, range(40), 2))


def test_few_items_are_done_in_this_process() -> None:
    assert count_workers(31, 8) == 1
    assert count_workers(32, 8) == 2
    assert count_workers(10_000, 3) == 3
    assert count_workers(10_000, 0) == len(os.sched_getaffinity(0))
