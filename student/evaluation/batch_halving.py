"""Evaluation within the memory that there is: on out of memory the batch size is halved."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TypeVar

from pipeline.config.config import Config
from pipeline.core.memory import is_out_of_memory

log = logging.getLogger(__name__)

T = TypeVar("T")


def halve_batch_on_oom(score: Callable[[Config], T], config: Config, *, alone: bool) -> T:
    """`score(config)`, again with half of `evaluate.batch_size` while it runs out of memory.

    The scores do not depend on the batch size. Raises the error that a single sample meets. With several
    processes (not `alone`) the first error is raised: the others wait in a collective for this one.
    """
    while True:
        size = config.evaluate.batch_size
        try:
            return score(config)
        except (MemoryError, RuntimeError) as error:
            if size == 1 or not alone or not is_out_of_memory(error):
                raise
        # Outside of `except`: the error's traceback would keep the failed batch in memory.
        log.warning("evaluate: out of memory at batch size %d; retrying with %d", size, size // 2)
        halved = config.evaluate.model_copy(update={"batch_size": size // 2})
        config = config.model_copy(update={"evaluate": halved})
