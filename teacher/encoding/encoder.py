"""The loaded towers of a process, with batches that are halved when they run out of memory.

encoder = Encoder("cuda")
rows = encoder.encode(encoder.tower(plan, "bfloat16"), images, ("embedding",))
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from functools import cache
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from pipeline.core.device import choose_device
from pipeline.core.fingerprint import fingerprint
from pipeline.core.memory import is_out_of_memory
from pipeline.errors import OutOfMemory
from pipeline.targets.provenance import PATCH

if TYPE_CHECKING:
    from teacher.contract import LoadedTower
    from teacher.encoding.units import TowerPlan
    from teacher.preprocessing.config import Sample

Rows = dict[str, NDArray[np.float32]]
"""Output to (N, ...), one row per image."""

log = logging.getLogger(__name__)


class Encoder:
    """At most one loaded tower of each name and teacher; another config's replaces it."""

    def __init__(self, device: str = "auto") -> None:
        self._asked_device = device
        self._towers: dict[str, tuple[str, LoadedTower]] = {}
        self.largest_batch: int | None = None
        """Largest batch that fits, learned from batches that did not; None while all did."""

    @property
    def device(self) -> str:
        """Device of the towers, with `auto` resolved."""
        return choose_device(self._asked_device)

    def tower(self, plan: TowerPlan, dtype: str) -> LoadedTower:
        """The tower of `plan` in `dtype` arithmetic, loaded if it is not yet. Raises `CheckpointError`."""
        store = next(iter(plan.stores.values()))
        requested = fingerprint(store.provenance.tower)
        loaded, tower = self._towers.get(plan.label, ("", None))
        if tower is None or loaded != requested:
            self._towers.pop(plan.label, None)  # first, so that no two are in memory
            tower = plan.source.load(dtype, self.device)
            self._towers[plan.label] = (requested, tower)
        return tower

    def encode(self, tower: LoadedTower, images: Sequence[Sample], outputs: Sequence[str]) -> Rows:
        """Preprocess and encode one batch, in micro-batches if it does not fit at once.

        A micro-batch that runs out of memory is retried with half as many images; later batches start
        with the size that fitted. Raises `OutOfMemory` when a single image does not fit.
        """
        encoded: list[Rows] = []
        start = 0
        while start < len(images):
            microbatch = images[start : start + (self.largest_batch or len(images))]
            rows = self._try(tower, microbatch, outputs)
            if rows is not None:
                encoded.append(rows)
                start += len(microbatch)
        return {name: np.concatenate([rows[name] for rows in encoded]) for name in outputs}

    def _try(
        self, tower: LoadedTower, images: Sequence[Sample], outputs: Sequence[str]
    ) -> Rows | None:
        """The rows, or None after the batch size was halved."""
        try:
            output = tower.encode(tower.preprocess(images), patch=PATCH in outputs)
            return {name: getattr(output, name).cpu().numpy() for name in outputs}
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
            self._halve(tower, len(images), reason)
        # Only here: within `except`, the traceback still refers to the tensors that did not fit.
        _release_cached_memory()
        return None

    def _halve(self, tower: LoadedTower, size: int, reason: str) -> None:
        name = next((name for name, (_, it) in self._towers.items() if it is tower), "image")
        if size == 1:
            raise OutOfMemory(
                f"{name} tower on {tower.device}: expected memory for one image at a time, "
                f"found: {reason}. Free memory, or try `--set teacher.dtype=bfloat16` or "
                "`--set teacher.device=cpu`; what is committed stays."
            )
        self.largest_batch = size // 2
        log.warning(
            "%s tower on %s: %d images do not fit (%s); continuing with %d at a time",
            *(name, tower.device, size, reason, self.largest_batch),
        )


@cache
def process_encoder(device: str = "auto") -> Encoder:
    """This process's encoder, for worker processes that run tasks without state of their own."""
    return Encoder(device)


def _release_cached_memory() -> None:
    import torch

    if torch.cuda.is_available():
        torch.cuda.empty_cache()
