"""What is saved comes back bit for bit, and nothing else is accepted."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch
from torch import nn

from pipeline.errors import CheckpointError, FingerprintMismatch
from pipeline.storage.files import sha256_file
from student.model.weight_average import Ema
from student.runs.checkpoint import (
    EMA,
    load_average,
    load_checkpoint,
    load_module,
    load_optimizer,
    optimizer_tensors,
    prefixed,
    save_checkpoint,
)
from student.runs.run import Run, steps_done


@pytest.fixture
def run(tmp_path):
    return Run("r-0", tmp_path, {"seed": 0, "train": {"steps": 9}})


def network(seed: int) -> nn.Module:
    torch.manual_seed(seed)
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 2, 1))
    return net.to(memory_format=torch.channels_last)


def update(net: nn.Module, optimizer: torch.optim.Optimizer, seed: int) -> None:
    pictures = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(seed))
    optimizer.zero_grad()
    net(pictures).square().sum().backward()
    optimizer.step()


def test_going_on_after_a_reload_equals_going_on(run):
    one, other = network(0), network(1)
    optimizers = [torch.optim.AdamW(net.parameters(), lr=0.1, fused=True) for net in (one, other)]
    update(one, optimizers[0], 0)
    names = [dict(net.named_parameters()) for net in (one, other)]
    save_checkpoint(
        run, 3, prefixed("model", one.state_dict()) | optimizer_tensors(optimizers[0], names[0])
    )
    checkpoint = load_checkpoint(run)
    assert checkpoint.step == steps_done(run) == 3
    load_module(run, "model", other, checkpoint)
    load_optimizer(optimizers[1], names[1], checkpoint)
    for net, optimizer in zip((one, other), optimizers, strict=True):
        update(net, optimizer, 1)
    for key, value in one.state_dict().items():
        assert torch.equal(value, other.state_dict()[key]), key


def test_the_state_file_names_the_digest(run):
    save_checkpoint(run, 1, {"model.a": torch.ones(2)})
    state = json.loads(run.checkpoint_state.read_text())
    assert state["sha256"] == sha256_file(run.checkpoint)
    assert state["identity"] == run.identity


def test_no_checkpoint_is_none(run):
    assert load_checkpoint(run) is None
    assert steps_done(run) == 0


def test_another_runs_checkpoint_is_refused_by_field(run):
    save_checkpoint(run, 1, {"model.a": torch.ones(2)})
    other = replace(run, identity=run.identity | {"seed": 1})
    with pytest.raises(FingerprintMismatch, match="differs in: seed"):
        load_checkpoint(other)


@pytest.mark.parametrize("data", [b"", b"\x00" * 64, b"\xff" * 9])
def test_a_damaged_file_is_refused(run, data):
    run.checkpoint.parent.mkdir()
    run.checkpoint.write_bytes(data)
    with pytest.raises(CheckpointError, match=r"not a readable checkpoint.*Delete it"):
        load_checkpoint(run)


def test_a_file_of_another_schema_is_refused(run, monkeypatch):
    monkeypatch.setattr("student.runs.checkpoint.CHECKPOINT_SCHEMA", 0)
    save_checkpoint(run, 1, {"model.a": torch.ones(2)})
    monkeypatch.undo()
    with pytest.raises(CheckpointError, match="expected checkpoint schema 2, found 0"):
        load_checkpoint(run)


def test_the_schema_before_is_read(run, monkeypatch):
    monkeypatch.setattr("student.runs.checkpoint.CHECKPOINT_SCHEMA", 1)
    save_checkpoint(run, 4, {"model.a": torch.ones(2), "rng.torch": torch.ones(5)})
    monkeypatch.undo()
    found = load_checkpoint(run)
    assert (found.step, found.part("model").keys()) == (4, {"a"})


def test_an_average_comes_back_and_one_that_is_not_there_is_named(run):
    one, other = (Ema(network(seed), 0.9) for seed in (0, 1))
    one.update(network(2))
    save_checkpoint(run, 1, prefixed(EMA, one.tensors()))
    load_average(run, other, load_checkpoint(run))
    assert other.updates == 1
    for key, value in one.tensors().items():
        assert torch.equal(value, other.tensors()[key]), key
    save_checkpoint(run, 1, {"model.a": torch.ones(2)})
    with pytest.raises(CheckpointError, match="ema does not fit"):
        load_average(run, other, load_checkpoint(run))


def test_a_part_that_does_not_fit_is_named(run):
    save_checkpoint(run, 1, {"model.weight": torch.ones(2, 3)})
    with pytest.raises(CheckpointError, match=r"(?s)model does not fit.*bias"):
        load_module(run, "model", nn.Linear(3, 2), load_checkpoint(run))
