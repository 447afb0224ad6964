"""The average against a loop over its definition."""

from __future__ import annotations

import torch
from torch import nn

from student.model.weight_average import Ema


def noisy(module: nn.Module, generator: torch.Generator) -> None:
    with torch.no_grad():
        for value in module.state_dict().values():
            if value.is_floating_point():
                value.add_(torch.randn(value.shape, generator=generator))
            else:
                value.add_(1)


def test_it_is_the_recursion_with_growing_decay() -> None:
    generator = torch.Generator().manual_seed(0)
    module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
    ema = Ema(module, 0.5)
    expected = {name: value.double() for name, value in module.state_dict().items()}
    for t in range(1, 21):
        noisy(module, generator)
        ema.update(module)
        decay = min(0.5, (1 + t) / (10 + t))
        for name, value in module.state_dict().items():
            old = expected[name]
            mixed = decay * old + (1 - decay) * value.double()
            expected[name] = mixed if value.is_floating_point() else value.double()
    for name, value in ema.module.state_dict().items():
        torch.testing.assert_close(value.double(), expected[name], rtol=1e-5, atol=1e-6)
    assert not any(p.requires_grad for p in ema.module.parameters())


def test_saved_and_loaded_it_goes_on_alike() -> None:
    generator = torch.Generator().manual_seed(1)
    module = nn.BatchNorm2d(3)
    first = Ema(module, 0.9)
    noisy(module, generator)
    first.update(module)
    second = Ema(nn.BatchNorm2d(3), 0.9)
    second.load({name: value.clone() for name, value in first.tensors().items()})
    noisy(module, generator)
    first.update(module)
    second.update(module)
    for name, value in first.tensors().items():
        assert torch.equal(value, second.tensors()[name]), name
