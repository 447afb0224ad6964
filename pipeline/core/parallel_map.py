"""One function over many items in several processes: results in order, memory bounded.

An exception of the function passes through. A worker process that dies is a `WorkerLost`; a script that
starts processes while it is imported is an `Any2SegError`. Workers end with their parent.
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
"""Items in flight per process: bounds the memory."""
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
    """`work(item)` for each item, in order; `workers` 0 means one process per available processor.

    `work` is sent to each process once, so it may hold what all items need. Raises `WorkerLost` if
    a worker process dies.
    """
    num_workers = count_workers(len(items), workers)
    if num_workers == 1:
        yield from map(work, items)
        return
    _require_guard()
    queue: SimpleQueue[Any] = SPAWN.SimpleQueue()
    pool = ProcessPoolExecutor(num_workers, SPAWN, _start_worker, (queue,))
    try:
        _hand_out(queue, work, num_workers)
        yield from _windowed(pool, items, num_workers * WINDOW_PER_WORKER)
    except BrokenProcessPool as error:
        how = f"died ({OUT_OF_MEMORY}, or the script that started it lacks {GUARD})"
        raise WorkerLost(
            death_text("a process that reads samples", how, "printed above", RESUME)
        ) from error
    finally:
        # A caller that stops iterating must not wait for items that it will never see.
        pool.shutdown(wait=True, cancel_futures=True)
        queue.close()  # ends the hand-out thread if a worker never fetched its copy


def count_workers(num_items: int, workers: int) -> int:
    """Number of processes that `map_in_order` uses; 1: only the calling one."""
    # Not `os.cpu_count()`: a container or a scheduler may have given us fewer processors.
    requested = workers or len(os.sched_getaffinity(0))
    return max(1, min(requested, num_items // MIN_ITEMS_PER_WORKER))


def _require_guard() -> None:
    """Raise `Any2SegError` in a process that is being started and would start more.

    A spawned process imports the script that started it. If that calls us outside of its guard, it
    gets here again, and both would wait for each other forever.
    """
    # Set by multiprocessing while a child imports its parent's script; there is no public name for it.
    if getattr(multiprocessing.current_process(), "_inheriting", False):
        raise Any2SegError(
            f"the script calls this outside of {GUARD}, so every process that it starts would start "
            "more. Put the call under that line, or set prepare.workers to 1."
        )


def _hand_out(queue: SimpleQueue[Any], work: Callable[[Any], Any], num_workers: int) -> None:
    """Let each process fetch `work`, which may hold the list of a whole data set, once it is ready.

    As an argument of the process it would be written to a pipe that nobody reads if the process dies
    during its start (a script that cannot be imported): beyond the pipe's 64 KiB that blocks forever.
    """
    ForkingPickler.dumps(work)  # what cannot be pickled must fail here, not in the thread below

    def put() -> None:
        # The pool starts a process only when it has work for it, so some copies may never be
        # fetched; then the queue is closed under us. In the middle of a large write that is a
        # TypeError, because its handle has become None.
        with suppress(OSError, TypeError):
            for _ in range(num_workers):
                queue.put(work)

    # A thread, because `put` blocks until a worker reads, and no worker has started yet.
    threading.Thread(target=put, name="hand-out", daemon=True).start()


def _windowed(pool: ProcessPoolExecutor, items: Iterable[Any], window: int) -> Iterator[Any]:
    futures: deque[Future[Any]] = deque()
    for item in items:
        futures.append(pool.submit(_work_on, item))
        # Waits for the oldest although later ones may be done: results leave in order, and a slow
        # item then holds back at most a window of finished ones.
        if len(futures) >= window:
            yield futures.popleft().result()
    while futures:
        yield futures.popleft().result()


_work: Callable[[Any], Any] | None = None
"""What this worker process does; a global, so that it is sent once and not with every item."""


def _start_worker(queue: SimpleQueue[Any]) -> None:
    global _work
    end_with_parent()
    _work = queue.get()


def _work_on(item: Any) -> Any:
    assert _work is not None
    return _work(item)
