"""The device that `auto` means, and that a named one is left alone."""

import torch

from teacher.device import choose_device


def test_a_named_device_is_taken_as_it_is() -> None:
    assert choose_device("cuda:1") == "cuda:1"


def test_auto_is_a_device_that_torch_can_use() -> None:
    assert torch.ones(1, device=choose_device("auto")).item() == 1.0
