"""Devices by name, threads for a block."""

from __future__ import annotations

import pytest
import torch

from pipeline.core.device import choose_device, threads
from pipeline.errors import ConfigError


def test_choose_device_takes_the_name_or_the_best_available(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    assert choose_device("auto") == choose_device("cpu") == "cpu"
    for name in ("cuda", "cuda:1"):
        with pytest.raises(
            ConfigError, match=f"'{name}': not available here; expected one of: auto, cpu"
        ):
            choose_device(name)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert choose_device("auto") == "cuda"
    assert choose_device("cuda:1") == "cuda:1"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    assert choose_device("auto") == "mps"


def test_threads_restores_the_number_of_threads():
    before = torch.get_num_threads()
    with threads(before + 1):
        assert torch.get_num_threads() == before + 1
    assert torch.get_num_threads() == before
    with threads(0):
        assert torch.get_num_threads() == before
