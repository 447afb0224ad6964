"""Rank, world size and collectives of the processes that train one student.

`torchrun` (one or many nodes) sets RANK, WORLD_SIZE and LOCAL_RANK; without them there is one
process. Every process takes an equal part of every batch, so that none runs out of data before the
others. The only connections are torch.distributed's, between the processes of the run (gloo, or
nccl on CUDA). Raises `ConfigError` for a batch size that does not divide.
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
    def is_main_process(self) -> bool:
        """Whether this is the one process that writes."""
        return self.rank == 0

    def local_batch_size(self, batch_size: int, accumulate: int = 1) -> int:
        """Samples in one of a process's `accumulate` micro-batches. Raises `ConfigError`."""
        parts = self.size * accumulate
        if batch_size % parts:
            raise ConfigError(
                f"train.batch_size = {batch_size}: expected a multiple of {parts} "
                f"({self.size} processes x train.accumulate = {accumulate})"
            )
        return batch_size // parts

    def device(self, chosen: torch.device) -> torch.device:
        """The process's own accelerator of that type."""
        return torch.device("cuda", self.local_rank) if chosen.type == "cuda" else chosen

    def mean(self, value: Tensor) -> Tensor:
        """The mean of a tensor over the processes."""
        if self.size > 1:
            value = self.total(value) / self.size
        return value

    def total(self, count: Tensor) -> Tensor:
        """The sum of a tensor over the processes."""
        if self.size > 1:
            count = count.clone()
            distributed.all_reduce(count)
        return count

    def wrap_ddp(self, module: nn.Module) -> nn.Module:
        """The module, wrapped so that its gradients are averaged over the processes."""
        if self.size == 1:
            return module
        # Buffers: see `average_`. A batch without some modality leaves that one's weights unused.
        return DistributedDataParallel(module, broadcast_buffers=False, find_unused_parameters=True)

    def average_(self, tensors: Sequence[Tensor]) -> None:
        """Replace tensors by their means over the processes, in one all-reduce."""
        if self.size > 1:
            flat = self.mean(torch.cat([tensor.flatten() for tensor in tensors]))
            means = torch.split(flat, [tensor.numel() for tensor in tensors])
            for tensor, mean in zip(tensors, means, strict=True):
                tensor.copy_(mean.view_as(tensor))

    def barrier(self) -> None:
        """Wait until every process has come this far."""
        if self.size > 1:
            distributed.barrier()


@contextmanager
def join_world(device_type: str) -> Iterator[World]:
    """Join the process group that `torchrun` started, for the block; without one, be alone."""
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1:
        yield World()
        return
    world = World(int(os.environ["RANK"]), size, int(os.environ.get("LOCAL_RANK", "0")))
    if device_type == "cuda":
        torch.cuda.set_device(world.local_rank)
    distributed.init_process_group("nccl" if device_type == "cuda" else "gloo")
    try:
        yield world
    finally:
        distributed.destroy_process_group()
