"""An exponential moving average of a module's weights (Polyak averaging; mean teacher, Tarvainen and
Valpola, 2017).

Early averages would be dominated by the initial weights, so the decay grows: min(decay, (1 + t) / (10
+ t)) at update t. Floating-point parameters and buffers are averaged, integer ones copied.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Generic, TypeVar

import torch
from torch import Tensor, nn

M = TypeVar("M", bound=nn.Module)


class Ema(Generic[M]):
    """Exponential moving average of `module`'s weights; in evaluation mode, without gradients."""

    def __init__(self, module: M, decay: float) -> None:
        self.decay = decay
        self.updates = 0
        self.module: M = copy.deepcopy(module).eval().requires_grad_(False)

    @torch.no_grad()
    def update(self, module: nn.Module) -> None:
        """Move towards the current weights of `module`."""
        self.updates += 1
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        average, current = self.module.state_dict(), module.state_dict()
        floating = [name for name, value in average.items() if value.is_floating_point()]
        # One fused call for all tensors: hundreds of small ones would cost more than the sums.
        torch._foreach_lerp_(
            [average[name] for name in floating], [current[name] for name in floating], 1 - decay
        )
        for name in average.keys() - set(floating):
            average[name].copy_(current[name])

    def tensors(self) -> dict[str, Tensor]:
        """The averages by name, and the number of updates as `updates`."""
        return {
            **{f"weights.{name}": value for name, value in self.module.state_dict().items()},
            "updates": torch.tensor(self.updates),
        }

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Restore what `tensors` returned. Raises `RuntimeError` and `KeyError` if they do not fit."""
        weights = {
            name.removeprefix("weights."): value
            for name, value in tensors.items()
            if name != "updates"
        }
        self.module.load_state_dict(weights, strict=True)
        self.updates = int(tensors["updates"])
