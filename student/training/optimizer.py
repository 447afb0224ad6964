"""Optimizer step: AdamW, learning-rate schedule, loss scaling, gradient clipping.

Matrices and kernels are decayed, biases and norms are not. Under float16 the loss is scaled so that
small gradients do not underflow, and a step whose gradients overflow is skipped (Micikevicius et
al., 2018); the scale is part of a checkpoint.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from pipeline.config.train import TrainConfig
from student.runs.checkpoint import Checkpoint, load_optimizer, optimizer_tensors
from student.training.lr_schedule import learning_rate


class OptimizerStep:
    """The optimizer of named parameters, with everything between it and a loss."""

    def __init__(
        self,
        parameters: Mapping[str, nn.Parameter],
        train_config: TrainConfig,
        device: torch.device,
    ) -> None:
        self.train_config = train_config
        self.parameters = dict(parameters)
        self.optimizer = _optimizer(list(self.parameters.values()), train_config)
        self.scaler = torch.amp.GradScaler(device.type, enabled=train_config.precision == "float16")

    def start(self, step: int) -> float:
        """Clear the gradients; set and return the learning rate of `step`, counted from 0."""
        config = self.train_config
        lr = learning_rate(config.lr, step, config.steps, config.warmup_steps, config.decay)
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        self.optimizer.zero_grad(set_to_none=True)
        return lr

    def backward(self, loss: Tensor) -> None:
        """Add a loss's gradients to those of the step."""
        self.scaler.scale(loss).backward()  # type: ignore[no-untyped-call]

    def apply(self) -> dict[str, Tensor]:
        """Update the weights. With `train.clip_norm`, returns the gradient's norm before clipping."""
        metrics = {}
        if self.train_config.clip_norm:
            # The norm is compared with the limit in the gradient's own units.
            self.scaler.unscale_(self.optimizer)
            norm = nn.utils.clip_grad_norm_(self.parameters.values(), self.train_config.clip_norm)
            metrics["grad_norm"] = norm.detach()
        self.scaler.step(self.optimizer)
        self.scaler.update()
        return metrics

    def tensors(self) -> dict[str, Tensor]:
        """`optimizer.*`, and under float16 `scaler.*`."""
        state = self.scaler.state_dict()
        scaler = {f"scaler.{name}": torch.tensor(value) for name, value in state.items()}
        return optimizer_tensors(self.optimizer, self.parameters) | scaler

    def load(self, checkpoint: Checkpoint) -> None:
        """Restore what `tensors` returned."""
        load_optimizer(self.optimizer, self.parameters, checkpoint)
        if self.scaler.is_enabled():
            state = {name: value.item() for name, value in checkpoint.part("scaler").items()}
            self.scaler.load_state_dict(state)


def _optimizer(parameters: list[nn.Parameter], train_config: TrainConfig) -> torch.optim.AdamW:
    decay = train_config.weight_decay
    groups = [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": decay},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=train_config.lr, fused=True)
