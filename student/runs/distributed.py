"""Several processes that train one student: who am I, and how do we agree.

`torchrun` (one or many nodes) sets RANK, WORLD_SIZE and LOCAL_RANK; without them there is one
process. Every process takes an equal part of every batch, so none can run dry. Opens sockets of
torch.distributed between the processes of the run only (gloo, or nccl on CUDA); writes nothing. What
can fail: `ConfigError` for a batch that does not divide.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, distributed, nn
from torch.nn.parallel import DistributedDataParallel

from pipeline.errors import ConfigError


@dataclass(frozen=True, slots=True)
class World:
    """This process among all that train the run."""

    rank: int = 0
    size: int = 1
    local_rank: int = 0

    @property
    def leads(self) -> bool:
        """Whether this is the one process that writes."""
        return self.rank == 0

    def part(self, batch_size: int, pieces: int = 1) -> int:
        """Samples of one process in one of `pieces` pieces of a batch. Raises `ConfigError`."""
        parts = self.size * pieces
        if batch_size % parts:
            raise ConfigError(
                f"train.batch_size = {batch_size}: expected a multiple of {parts} "
                f"({self.size} processes x train.accumulate = {pieces})"
            )
        return batch_size // parts

    def device(self, chosen: torch.device) -> torch.device:
        """The process's own accelerator of that type."""
        return torch.device("cuda", self.local_rank) if chosen.type == "cuda" else chosen

    def mean(self, value: Tensor) -> Tensor:
        """The average of a tensor over the processes."""
        if self.size > 1:
            value = self.total(value) / self.size
        return value

    def total(self, count: Tensor) -> Tensor:
        """The sum of a tensor over the processes."""
        if self.size > 1:
            count = count.clone()
            distributed.all_reduce(count)
        return count

    def share(self, module: nn.Module) -> nn.Module:
        """The same module, whose gradients all processes average while they are made."""
        if self.size == 1:
            return module
        # Buffers: see `average_`. A batch without some modality leaves that one's weights unused.
        return DistributedDataParallel(module, broadcast_buffers=False, find_unused_parameters=True)

    def average_(self, tensors: Sequence[Tensor]) -> None:
        """Replace tensors by their means over the processes, in one exchange."""
        if self.size > 1:
            flat = self.mean(torch.cat([tensor.flatten() for tensor in tensors]))
            parts = torch.split(flat, [tensor.numel() for tensor in tensors])
            for tensor, part in zip(tensors, parts, strict=True):
                tensor.copy_(part.view_as(tensor))

    def wait(self) -> None:
        """Until every process is here."""
        if self.size > 1:
            distributed.barrier()


@contextmanager
def world(device_type: str) -> Iterator[World]:
    """Join the processes that `torchrun` started, for the block; alone if it started none."""
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1:
        yield World()
        return
    found = World(int(os.environ["RANK"]), size, int(os.environ.get("LOCAL_RANK", "0")))
    if device_type == "cuda":
        torch.cuda.set_device(found.local_rank)
    distributed.init_process_group("nccl" if device_type == "cuda" else "gloo")
    try:
        yield found
    finally:
        distributed.destroy_process_group()
