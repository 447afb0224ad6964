"""One function over many items in several processes: results in order, memory bounded.

An exception of the function passes through; a worker process that dies is an `Any2SegError`, and so is
a script that starts processes while it is imported. Workers end with their parent, however it ends.
"""

from __future__ import annotations

import multiprocessing
import os
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from multiprocessing.queues import SimpleQueue
from multiprocessing.reduction import ForkingPickler
from typing import Any, TypeVar

from pipeline.core.child import OUT_OF_MEMORY, SPAWN, death_text, end_with_parent
from pipeline.errors import Any2SegError, WorkerLost

Item = TypeVar("Item")
Result = TypeVar("Result")

WINDOW_PER_WORKER = 4
"""Items in flight for each process: bounds the memory."""
GUARD = '`if __name__ == "__main__":`'
RESUME = (
    "Run again; it resumes where it stopped. `--set prepare.workers=1` needs the least memory and no "
    "such line."
)
MIN_ITEMS_PER_WORKER = 16
"""Starting a process costs about as much as decoding and encoding this many samples."""


def map_in_order(
    work: Callable[[Item], Result], items: Sequence[Item], workers: int
) -> Iterator[Result]:
    """`work` of each item, in their order; `workers` 0 means one process per available processor.

    `work` crosses to each process once, so it may hold what all items need. Raises `WorkerLost`
    if a worker process dies.
    """
    num_workers = count_workers(len(items), workers)
    if num_workers == 1:
        yield from map(work, items)
        return
    _require_guard()
    handed: SimpleQueue[Any] = SPAWN.SimpleQueue()
    pool = ProcessPoolExecutor(num_workers, SPAWN, _start_worker, (handed,))
    try:
        _hand_out(handed, work, num_workers)
        yield from _windowed(pool, items, num_workers * WINDOW_PER_WORKER)
    except BrokenProcessPool as error:
        how = f"died ({OUT_OF_MEMORY}, or the script that started it lacks {GUARD})"
        raise WorkerLost(
            death_text("a process that reads samples", how, "printed above", RESUME)
        ) from error
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
        handed.close()


def count_workers(num_items: int, workers: int) -> int:
    """Processes that `map_in_order` uses; 1: the calling one."""
    wanted = workers or len(os.sched_getaffinity(0))
    return max(1, min(wanted, num_items // MIN_ITEMS_PER_WORKER))


def _require_guard() -> None:
    """Raise `Any2SegError` in a process that is being started and would start more.

    A process that is spawned imports the script that started it. If that calls us outside of its
    guard, it gets here again; left alone, both would wait for each other for ever.
    """
    if getattr(multiprocessing.current_process(), "_inheriting", False):
        raise Any2SegError(
            f"the script calls this outside of {GUARD}, so every process that it starts would start "
            "more. Put the call under that line, or set prepare.workers to 1."
        )


def _hand_out(handed: SimpleQueue[Any], work: Callable[[Any], Any], num_workers: int) -> None:
    """Let each process fetch `work`, which lists a whole data set, when it is ready for it.

    As an argument of the process it would be written to a pipe that nobody reads if the process dies
    while it starts (a script that cannot be imported), and from 64 KiB on that blocks for ever.
    """
    ForkingPickler.dumps(work)  # what cannot cross must fail here and not in the thread

    def put() -> None:
        # The queue was closed, because fewer processes were started; in the middle of a large piece
        # that is a TypeError (its handle is None then).
        with suppress(OSError, TypeError):
            for _ in range(num_workers):
                handed.put(work)

    threading.Thread(target=put, name="hand-out", daemon=True).start()


def _windowed(pool: ProcessPoolExecutor, items: Iterable[Any], window: int) -> Iterator[Any]:
    futures: deque[Future[Any]] = deque()
    for item in items:
        futures.append(pool.submit(_work_on, item))
        if len(futures) >= window:
            yield futures.popleft().result()
    while futures:
        yield futures.popleft().result()


_work: Callable[[Any], Any] | None = None
"""What this worker process does, so that it crosses once and not with every item."""


def _start_worker(handed: SimpleQueue[Any]) -> None:
    global _work
    end_with_parent()
    _work = handed.get()


def _work_on(item: Any) -> Any:
    assert _work is not None
    return _work(item)
