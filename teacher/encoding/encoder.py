"""The towers that a process keeps: each loaded once, batches halved where memory does not suffice.

    encoder = Encoder("cuda")
    rows = encoder.encode(encoder.tower(plan, "bfloat16"), pictures, ("embedding",))

A worker keeps one `Encoder` for as long as it lives; `process_encoder` is the one of workers that
have nowhere to keep it. Writes nothing. Fails with `CheckpointError` (weights) or `OutOfMemory`.
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
from pipeline.modalities import TowerName
from pipeline.targets.provenance import PATCH

if TYPE_CHECKING:
    from teacher.encoding.units import TowerPlan
    from teacher.preprocessing.config import Sample
    from teacher.towers.vision_tower import Tower

Rows = dict[str, NDArray[np.float32]]
"""Output to one row a picture."""

log = logging.getLogger(__name__)


class Encoder:
    """One loaded tower of each name; another config's takes the place of the one before."""

    def __init__(self, device: str = "auto") -> None:
        self._asked_device = device
        self._towers: dict[TowerName, tuple[str, Tower]] = {}
        self.largest_batch: int | None = None
        """Pictures that fit at once, as learned from batches that did not; None: all did."""

    @property
    def device(self) -> str:
        """Where the towers are; `auto` is resolved when first asked."""
        return choose_device(self._asked_device)

    def tower(self, plan: TowerPlan, dtype: str) -> Tower:
        """The tower of `plan` in `dtype` arithmetic, loaded if this one is not. `CheckpointError`."""
        store = next(iter(plan.stores.values()))
        wanted = fingerprint(store.provenance.tower)
        held, tower = self._towers.get(plan.tower, ("", None))
        if tower is None or held != wanted:
            from teacher.towers.vision_tower import load_from_files

            self._towers.pop(plan.tower, None)  # never two of them in memory
            tower = load_from_files(plan.files, plan.preprocessing, dtype, self.device)
            self._towers[plan.tower] = (wanted, tower)
        return tower

    def encode(self, tower: Tower, pictures: Sequence[Sample], outputs: Sequence[str]) -> Rows:
        """Preprocess and encode one batch, in pieces if it does not fit at once.

        A piece that dies for want of memory is tried again with half as many pictures, and later
        batches begin with the size that did fit. Raises `OutOfMemory` when one alone does not.
        """
        pieces: list[Rows] = []
        start = 0
        while start < len(pictures):
            piece = pictures[start : start + (self.largest_batch or len(pictures))]
            rows = self._try(tower, piece, outputs)
            if rows is not None:
                pieces.append(rows)
                start += len(piece)
        return {name: np.concatenate([rows[name] for rows in pieces]) for name in outputs}

    def _try(self, tower: Tower, pictures: Sequence[Sample], outputs: Sequence[str]) -> Rows | None:
        """The rows, or None after the batch size was halved. The error's tensors die with this call."""
        try:
            output = tower.encode(tower.preprocess(pictures), patch=PATCH in outputs)
            return {name: getattr(output, name).cpu().numpy() for name in outputs}
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
            self._halve(tower, len(pictures), reason)
        _release_cached_memory()
        return None

    def _halve(self, tower: Tower, size: int, reason: str) -> None:
        name = tower.preprocessing.tower
        if size == 1:
            raise OutOfMemory(
                f"{name} tower on {tower.device}: expected room for at least one picture at a time, "
                f"found: {reason}. Free memory, or try `--set teacher.dtype=bfloat16` or "
                "`--set teacher.device=cpu`; what is committed stays."
            )
        self.largest_batch = size // 2
        log.warning(
            "%s tower on %s: %d pictures do not fit (%s); going on with %d at a time",
            *(name, tower.device, size, reason, self.largest_batch),
        )


@cache
def process_encoder(device: str = "auto") -> Encoder:
    """This process's encoder, for tasks that are handed from worker to worker by name only."""
    return Encoder(device)


def _release_cached_memory() -> None:
    import torch

    if torch.cuda.is_available():
        torch.cuda.empty_cache()
