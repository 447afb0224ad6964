"""One function over many items: order, errors, and workers that die."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

from pipeline.core.parallel_map import _hand_out, count_workers, map_in_order
from pipeline.errors import Any2SegError


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


@dataclass(frozen=True)
class Large:
    """Work that holds much, as an adapter holds its listing."""

    factor: int
    data: bytes

    def __call__(self, number: int) -> int:
        return self.factor * number


@pytest.mark.parametrize("workers", [1, 2])
def test_results_are_in_order(workers: int) -> None:
    assert list(map_in_order(square, range(40), workers)) == [n * n for n in range(40)]


@pytest.mark.parametrize("workers", [1, 2])
def test_an_items_error_is_raised_after_the_results_before_it(workers: int) -> None:
    results = map_in_order(failing, range(40), workers)
    assert [next(results) for _ in range(20)] == list(range(20))
    with pytest.raises(ZeroDivisionError):
        next(results)


def test_a_dead_worker_raises_worker_lost_with_a_remedy() -> None:
    with pytest.raises(Any2SegError, match=r"died .*prepare.workers=1"):
        list(map_in_order(dying, range(40), 2))


UNGUARDED = """
import operator
from functools import partial
from pipeline.core.parallel_map import _hand_out, map_in_order
print(sum(map(len, map_in_order(partial(operator.mul, b"x" * SIZE), [1] * 40, 2))))
"""


@pytest.mark.parametrize("size", [10, 1_000_000])
def test_a_script_without_a_main_guard_ends_with_an_error(tmp_path: Path, size: int) -> None:
    """The larger one does not fit into a pipe that nobody reads."""
    script = tmp_path / "unguarded.py"
    script.write_text(UNGUARDED.replace("SIZE", str(size)))
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])}
    done = subprocess.run(
        [sys.executable, script], capture_output=True, text=True, env=environment, timeout=120
    )
    assert done.returncode == 1
    assert "Put the call under that line, or set prepare.workers to 1" in done.stderr
    assert done.stderr.rstrip().splitlines()[-1].startswith("pipeline.errors.WorkerLost: a process")
    assert done.stdout == ""


def test_a_closed_queue_ends_the_hand_out_silently() -> None:
    """A process that cannot start leaves the thread in the middle of a piece: its end is no error."""
    ended: list[object] = []
    before, threading.excepthook = threading.excepthook, ended.append
    try:
        for _ in range(20):
            queue = multiprocessing.get_context("spawn").SimpleQueue()
            _hand_out(queue, b"x" * 1_000_000, 2)
            time.sleep(0.002)
            queue.close()
        while any(thread.name == "hand-out" for thread in threading.enumerate()):
            time.sleep(0.01)
    finally:
        threading.excepthook = before
    assert ended == []


def test_work_larger_than_a_pipe_is_sent_once_per_worker(capfd: pytest.CaptureFixture[str]) -> None:
    assert list(map_in_order(Large(2, b"x" * 1_000_000), range(40), 2)) == list(range(0, 80, 2))
    assert capfd.readouterr().err == ""


def test_work_that_cannot_be_pickled_raises() -> None:
    with pytest.raises((AttributeError, pickle.PicklingError)):
        list(map_in_order(lambda number: number, range(40), 2))


def test_few_items_run_in_the_calling_process() -> None:
    assert count_workers(31, 8) == 1
    assert count_workers(32, 8) == 2
    assert count_workers(10_000, 3) == 3
    assert count_workers(10_000, 0) == len(os.sched_getaffinity(0))
