"""How gradients become weights: AdamW, the schedule, loss scaling, clipping.

Matrices and kernels are decayed, biases and norms are not. Under float16 the loss is scaled so that
small gradients do not vanish, and a step whose gradients overflow is left out (Micikevicius et al.,
2018); the scale is part of what a checkpoint keeps. Writes nothing, raises nothing.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from pipeline.config.train import TrainConfig
from student.runs.checkpoint import Checkpoint, load_optimizer, optimizer_tensors
from student.training.lr_schedule import learning_rate


class Updates:
    """The optimiser of named parameters and all that stands between it and a loss."""

    def __init__(
        self, parameters: Mapping[str, nn.Parameter], train: TrainConfig, device: torch.device
    ) -> None:
        self.train = train
        self.parameters = dict(parameters)
        self.optimizer = _optimizer(list(self.parameters.values()), train)
        self.scaler = torch.amp.GradScaler(device.type, enabled=train.precision == "float16")

    def start(self, step: int) -> float:
        """Forget the last gradients; returns the learning rate of `step`, counted from 0."""
        train = self.train
        lr = learning_rate(train.lr, step, train.steps, train.warmup_steps, train.decay)
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        self.optimizer.zero_grad(set_to_none=True)
        return lr

    def backward(self, loss: Tensor) -> None:
        """Add a loss's gradients to those of the step."""
        self.scaler.scale(loss).backward()  # type: ignore[no-untyped-call]

    def apply(self) -> dict[str, Tensor]:
        """Change the weights; with `train.clip_norm`, the norm that the gradient had before."""
        figures = {}
        if self.train.clip_norm:
            self.scaler.unscale_(self.optimizer)
            norm = nn.utils.clip_grad_norm_(self.parameters.values(), self.train.clip_norm)
            figures["grad_norm"] = norm.detach()
        self.scaler.step(self.optimizer)
        self.scaler.update()
        return figures

    def tensors(self) -> dict[str, Tensor]:
        """`optimizer.*`, and under float16 `scaler.*`."""
        state = self.scaler.state_dict()
        scaler = {f"scaler.{name}": torch.tensor(value) for name, value in state.items()}
        return optimizer_tensors(self.optimizer, self.parameters) | scaler

    def load(self, checkpoint: Checkpoint) -> None:
        """Go back to what `tensors` gave."""
        load_optimizer(self.optimizer, self.parameters, checkpoint)
        if self.scaler.is_enabled():
            state = {name: value.item() for name, value in checkpoint.part("scaler").items()}
            self.scaler.load_state_dict(state)


def _optimizer(parameters: list[nn.Parameter], train: TrainConfig) -> torch.optim.AdamW:
    groups = [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": train.weight_decay},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=train.lr, fused=True)
