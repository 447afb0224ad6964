"""The base class of own teachers: pixels, shapes, unit norm, and what it refuses."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from pipeline.errors import CheckpointError, ConfigError
from teacher.custom_teacher import CustomTeacher, LoadedCustomTower


class Colours(CustomTeacher):
    """Mean colour of the image and of its quarters."""

    input_px, embedding_dim, patch_shape = 8, 3, (4, 3)

    def identity(self) -> dict[str, Any]:
        return {}

    def load(self, dtype: str, device: str) -> Any:
        return colours


def colours(pixels: Tensor) -> tuple[Tensor, Tensor]:
    quarters = torch.nn.functional.adaptive_avg_pool2d(pixels, 2).flatten(2).transpose(1, 2)
    return quarters.mean(1), quarters


class Wrong(Colours):
    patch_shape = (4, 7)


class Module(Colours):
    def load(self, dtype: str, device: str) -> Any:
        return torch.nn.Conv2d(3, 3, 1)


def loaded(teacher: CustomTeacher, **options: object) -> LoadedCustomTower:
    return teacher.tower("image", **options).load("float32", "cpu")


def test_pixels_are_rgb_from_0_to_1_of_the_centre_square() -> None:
    image = np.zeros((8, 16, 3), np.uint8)
    image[:, 4:12] = (255, 51, 0)
    pixels = loaded(Colours()).preprocess([image, image[:, :, 0]])
    assert pixels.shape == (2, 3, 8, 8)
    assert pixels[0, :, 3, 3].tolist() == pytest.approx([1.0, 0.2, 0.0], abs=1e-6)
    assert torch.allclose(pixels[1], torch.ones(3, 8, 8), atol=1e-6)
    assert float(pixels.min()) >= 0.0
    assert float(pixels.max()) <= 1.0


def test_outputs_have_unit_norm_and_the_stated_shapes() -> None:
    tower = loaded(Colours())
    rng = np.random.default_rng(0)
    pixels = tower.preprocess([rng.integers(0, 256, (9, 8, 3), dtype=np.uint8) for _ in range(2)])
    output = tower.encode(pixels, patch=True)
    assert output.patch is not None
    assert (output.embedding.shape, output.patch.shape) == ((2, 3), (2, 4, 3))
    for values in output.embedding, output.patch:
        assert torch.allclose(values.norm(dim=-1), torch.ones(values.shape[:-1]))
    assert torch.allclose(
        output.embedding, torch.nn.functional.normalize(colours(pixels)[0], dim=-1)
    )
    assert tower.encode(pixels).patch is None


def test_shapes_that_the_network_does_not_give_are_refused() -> None:
    tower = loaded(Wrong())
    pixels = torch.zeros(1, 3, 8, 8)
    tower.encode(pixels)
    with pytest.raises(
        CheckpointError, match=r"expected patch rows of shape \(4, 7\), found \(4, 3\)"
    ):
        tower.encode(pixels, patch=True)


def test_other_towers_options_and_patch_counts_are_refused() -> None:
    with pytest.raises(CheckpointError, match="found a request for the depth tower"):
        Colours().tower("depth")
    with pytest.raises(ConfigError, match="no option 'holes'"):
        Colours().tower("image", holes="far")

    class Oblong(Colours):
        patch_shape = (6, 3)

    with pytest.raises(ConfigError, match="square number"):
        Oblong().tower("image")


def test_only_a_torch_module_is_a_network_with_parameters() -> None:
    assert getattr(loaded(Colours()), "network", None) is None
    assert sum(p.numel() for p in loaded(Module()).network.parameters()) == 12
