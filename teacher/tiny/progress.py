"""Shared by both training phases: budget in steps and minutes, LR schedule, log, optimizer step, losses.

The log is JSON lines: wall time of the phase, step, and loss terms in nats. The schedule follows the
used share of the budget, so a phase that reaches its time limit still ends at a rate of zero.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor, nn

WARMUP_SHARE = 0.04
WEIGHT_DECAY = 0.05
CLIP_NORM = 1.0
MAX_LOGIT_SCALE = math.log(100.0)


@dataclass(slots=True)
class Phase:
    """Progress and log of one training phase. `steps` and `minutes` are both limits."""

    name: str
    steps: int
    minutes: float
    log: Path
    every: int = 50
    step: int = 0
    started: float = field(default_factory=time.monotonic)
    _sums: dict[str, float] = field(default_factory=dict)

    @property
    def elapsed_s(self) -> float:
        return time.monotonic() - self.started

    @property
    def fraction(self) -> float:
        """Used share of the budget, in [0, 1]; 1 means finished."""
        return min(1.0, max(self.step / self.steps, self.elapsed_s / (60.0 * self.minutes)))

    def learning_rate(self, peak: float) -> float:
        """Linear warm-up, then a half cosine to zero."""
        used = self.fraction
        if used < WARMUP_SHARE:
            return peak * max(used, 1.0 / self.steps) / WARMUP_SHARE
        return peak * 0.5 * (1.0 + math.cos(math.pi * (used - WARMUP_SHARE) / (1 - WARMUP_SHARE)))

    def advance(self, terms: Mapping[str, float]) -> None:
        """Count a step; every `every` steps write and print the mean of each term since the last."""
        self.step += 1
        for name, value in terms.items():
            self._sums[name] = self._sums.get(name, 0.0) + value
        if self.step % self.every and self.fraction < 1.0:
            return
        count = (self.step - 1) % self.every + 1
        row = {"phase": self.name, "step": self.step, "elapsed_s": round(self.elapsed_s, 1)}
        row |= {name: round(total / count, 4) for name, total in self._sums.items()}
        self._sums.clear()
        with self.log.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")
        print(" ".join(f"{name}={value}" for name, value in row.items()), flush=True)


def make_optimizer(parameters: Iterable[nn.Parameter]) -> torch.optim.AdamW:
    """AdamW with decay on matrices only; the rate is set before every step."""
    params = list(parameters)
    return torch.optim.AdamW(
        [
            {"params": [p for p in params if p.ndim > 1], "weight_decay": WEIGHT_DECAY},
            {"params": [p for p in params if p.ndim <= 1], "weight_decay": 0.0},
        ],
        betas=(0.9, 0.98),
    )


def take_step(optimizer: torch.optim.AdamW, loss: Tensor, rate: float) -> None:
    """One clipped update; raises `FloatingPointError` when the loss is not finite."""
    if not torch.isfinite(loss):
        raise FloatingPointError(f"teacher.tiny: expected a finite loss, found {loss.item()}")
    optimizer.zero_grad(set_to_none=True)
    loss.backward()  # type: ignore[no-untyped-call]
    params = [p for group in optimizer.param_groups for p in group["params"]]
    nn.utils.clip_grad_norm_(params, CLIP_NORM)
    for group in optimizer.param_groups:
        group["lr"] = rate
    optimizer.step()


def contrastive_loss(left_BD: Tensor, right_BD: Tensor, logit_scale: Tensor) -> Tensor:
    """Symmetric InfoNCE of unit vectors (Radford et al. 2021), in nats."""
    scale = logit_scale.clamp(max=MAX_LOGIT_SCALE).exp()
    logits_BB = scale * left_BD @ right_BD.T
    target_B = torch.arange(len(left_BD))
    cross_entropy = nn.functional.cross_entropy
    loss: Tensor = cross_entropy(logits_BB, target_B) + cross_entropy(logits_BB.T, target_B)
    return 0.5 * loss


def share_loss(embedding_ND: Tensor, class_KD: Tensor, share_NK: Tensor, tau: float) -> Tensor:
    """KL from the shares (rows sum to 1, or to 0 and do not count) to softmax(e C^T / tau), nats."""
    log_prob_NK = torch.log_softmax(embedding_ND @ class_KD.T / tau, dim=-1)
    entropy_N = torch.special.entr(share_NK).sum(dim=-1)
    row_N = -(share_NK * log_prob_NK).sum(dim=-1) - entropy_N
    weight_N = share_NK.sum(dim=-1)
    total: Tensor = (row_N * weight_N).sum() / weight_N.sum().clamp_min(1e-6)
    return total
