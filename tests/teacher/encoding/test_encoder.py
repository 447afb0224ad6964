"""Towers are loaded once; batches that do not fit are halved, with a warning."""

from __future__ import annotations

import logging
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pipeline.config.config import Config
from pipeline.errors import OutOfMemory
from pipeline.workspace import Workspace
from teacher.encoding.encoder import Encoder, process_encoder
from teacher.encoding.precompute import precompute
from teacher.encoding.units import TowerPlan, plan_towers
from teacher.towers.vision_tower import Tower
from tests.teacher.conftest import write_source


def image_plan(config: Config) -> TowerPlan:
    return plan_towers(config, Workspace.of(config))[0]


class SmallMemory:
    """A real network on a device that holds `limit` pictures."""

    def __init__(self, network: Any, limit: int, error: Exception) -> None:
        self.network, self.limit, self.error = network, limit, error
        self.sizes: list[int] = []

    def __call__(self, pixels: torch.Tensor, patch: bool) -> Any:
        self.sizes.append(len(pixels))
        if len(pixels) > self.limit:
            raise self.error
        return self.network(pixels, patch=patch)


@pytest.fixture
def tower(config: Config) -> Tower:
    return Encoder("cpu").tower(image_plan(config), "float32")


@pytest.fixture
def pictures() -> list[Any]:
    rng = np.random.default_rng([11])
    return [rng.integers(0, 256, (40, 50, 3), dtype=np.uint8) for _ in range(9)]


OOM = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB\nand much advice")


def with_memory(tower: Tower, limit: int, error: Exception = OOM) -> tuple[Tower, SmallMemory]:
    memory = SmallMemory(tower.network, limit, error)
    return replace(tower, network=memory), memory  # type: ignore[arg-type]


def test_a_batch_that_does_not_fit_is_halved_until_it_does(
    tower: Tower, pictures: list[Any], caplog: pytest.LogCaptureFixture
) -> None:
    small, memory = with_memory(tower, 2)
    encoder = Encoder("cpu")
    with caplog.at_level(logging.WARNING):
        rows = encoder.encode(small, pictures, ("embedding", "patch"))
    assert memory.sizes == [9, 4, 2, 2, 2, 2, 1]
    assert encoder.largest_batch == 2
    assert "image tower on cpu: 4 images do not fit (CUDA out of memory" in caplog.text
    whole = Encoder("cpu").encode(tower, pictures, ("embedding", "patch"))
    for name, values in whole.items():
        np.testing.assert_allclose(rows[name], values, atol=1e-6)


def test_later_batches_begin_with_the_size_that_fitted(tower: Tower, pictures: list[Any]) -> None:
    small, memory = with_memory(tower, 4)
    encoder = Encoder("cpu")
    encoder.encode(small, pictures, ("embedding",))
    memory.sizes.clear()
    encoder.encode(small, pictures, ("embedding",))
    assert memory.sizes == [4, 4, 1]


def test_one_picture_that_does_not_fit_ends_the_pass(tower: Tower, pictures: list[Any]) -> None:
    small, _ = with_memory(tower, 0, MemoryError())
    with pytest.raises(OutOfMemory, match=r"memory for one image.*MemoryError.*teacher\.dtype"):
        Encoder("cpu").encode(small, pictures, ("embedding",))


def test_other_errors_pass(tower: Tower, pictures: list[Any]) -> None:
    small, memory = with_memory(tower, 0, RuntimeError("shapes do not match"))
    with pytest.raises(RuntimeError, match="shapes do not match"):
        Encoder("cpu").encode(small, pictures, ("embedding",))
    assert memory.sizes == [9]


def test_a_pass_with_little_memory_says_so_and_gives_the_same_numbers(
    config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = Tower.encode

    def encode(self: Tower, pixels: torch.Tensor, *, patch: bool = False) -> Any:
        if len(pixels) > 1:
            raise OOM
        return real(self, pixels, patch=patch)

    monkeypatch.setattr(Tower, "encode", encode)
    report = precompute(config, Workspace.of(config), progress=False)
    assert (report.done, report.details["batch_size"]) == (13, 1)


def test_a_tower_is_loaded_once_and_again_only_for_another_config(
    config: Config, source: Path, tmp_path: Path, weights_read: list[Path]
) -> None:
    encoder = Encoder("cpu")
    first = encoder.tower(image_plan(config), "float32")
    assert encoder.tower(image_plan(config), "float32") is first
    assert weights_read == [*image_plan(config).source.files.weights]
    other = write_source(tmp_path / "other", seed=1)
    changed = config.model_copy(
        update={"teacher": config.teacher.model_copy(update={"name": str(other)})}
    )
    assert encoder.tower(image_plan(changed), "float32") is not first
    assert weights_read[1:] == [*image_plan(changed).source.files.weights]


def test_two_passes_with_one_encoder_load_each_tower_once(
    config: Config, source: Path, weights_read: list[Path]
) -> None:
    encoder = Encoder("cpu")
    precompute(config, Workspace.of(config), encoder=encoder, progress=False)
    pooled = {"templates": "driving", "outputs": ("embedding",)}
    other = config.model_copy(update={"teacher": config.teacher.model_copy(update=pooled)})
    precompute(other, Workspace.of(other), encoder=encoder, progress=False)
    image, depth = (
        source / f"LanguageBind_{tower}" / "model.safetensors" for tower in ("Image", "Depth")
    )
    # The text half lies in the image checkpoint, and each pass has prompts of its own.
    assert Counter(weights_read) == {image: 1 + 2, depth: 1}


def test_a_process_keeps_one_encoder_a_device() -> None:
    assert process_encoder("cpu") is process_encoder("cpu")
