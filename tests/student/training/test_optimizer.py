"""Groups of the optimiser, clipping, and the loss scale that overflows lower."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from pipeline.config.train import TrainConfig
from student.runs.checkpoint import Checkpoint
from student.training.lr_schedule import learning_rate
from student.training.optimizer import OptimizerStep

CPU = torch.device("cpu")


def build(**fields) -> tuple[nn.Sequential, OptimizerStep]:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Conv2d(4, 2, 1))
    return net, OptimizerStep(dict(net.named_parameters()), TrainConfig(steps=10, **fields), CPU)


def loss_of(net: nn.Module, scale: float = 1.0) -> torch.Tensor:
    pictures = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    return net(pictures).square().sum() * scale


def test_norms_and_biases_are_not_decayed() -> None:
    decayed, kept = build()[1].optimizer.param_groups
    assert decayed["weight_decay"] > 0 == kept["weight_decay"]
    assert {p.ndim > 1 for p in decayed["params"]} == {True}
    assert {p.ndim > 1 for p in kept["params"]} == {False}


@pytest.mark.parametrize("decay", ["poly", "cosine"])
def test_the_rate_is_the_schedules(decay: str) -> None:
    updates = build(decay=decay, warmup_steps=2, lr=0.5)[1]
    assert updates.start(4) == learning_rate(0.5, 4, 10, 2, decay)
    assert {group["lr"] for group in updates.optimizer.param_groups} == {updates.start(4)}


@pytest.mark.parametrize("precision", ["float32", "float16"])
def test_clipping_leaves_at_most_the_norm_and_tells_what_it_was(precision: str) -> None:
    net, updates = build(clip_norm=0.5, precision=precision)
    updates.start(0)
    updates.backward(loss_of(net))
    found = updates.apply()["grad_norm"]
    clipped = torch.stack([p.grad.norm() for p in net.parameters()]).norm()
    assert found > 1
    assert float(clipped) == pytest.approx(0.5, rel=1e-4)


def test_a_step_that_overflows_is_left_out_and_the_lower_scale_is_kept() -> None:
    net, updates = build(precision="float16")
    before = [p.detach().clone() for p in net.parameters()]
    updates.start(0)
    updates.backward(loss_of(net, 1e38))
    updates.apply()
    for old, new in zip(before, net.parameters(), strict=True):
        assert torch.equal(old, new)
    other = build(precision="float16")[1]
    assert updates.scaler.get_scale() < other.scaler.get_scale()
    other.load(Checkpoint(updates.tensors(), {}))
    assert other.scaler.get_scale() == updates.scaler.get_scale()
