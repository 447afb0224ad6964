"""timm's vision transformers give timm's own numbers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from PIL import Image
from safetensors.torch import save_file
from timm.data import create_transform, resolve_model_data_config
from torch.nn import functional

from pipeline.errors import CheckpointError
from teacher.open import open_teacher

NAME = "test_vit"
"""timm's own model for tests."""


def write_weights(path: Path, name: str = NAME) -> Any:
    torch.manual_seed(0)
    network = timm.create_model(name, pretrained=False).eval()
    save_file(network.state_dict(), path)
    return network


@pytest.mark.parametrize("name", [NAME, "test_vit2", "test_vit3"])
def test_pixels_pooled_and_dense_are_timms(name: str, tmp_path: Path, images: list[Any]) -> None:
    weights = tmp_path / "weights.safetensors"
    network = write_weights(weights, name)
    teacher = open_teacher(f"timm/{name}@{weights}")
    source = teacher.tower("image")
    tower = source.load("float32", "cpu")
    pixels = tower.preprocess(images)
    transform = create_transform(**resolve_model_data_config(network), is_training=False)
    assert torch.equal(pixels, torch.stack([transform(Image.fromarray(i)) for i in images]))
    with torch.no_grad():
        tokens = network.forward_features(pixels)
        pooled = network.forward_head(tokens, pre_logits=True)
        patches = network.fc_norm(tokens[:, network.num_prefix_tokens :])
    output = tower.encode(pixels, patch=True)
    expected = {
        "embedding": functional.normalize(pooled, dim=-1),
        "patch": functional.normalize(patches, dim=-1),
    }
    for key, value in expected.items():
        torch.testing.assert_close(getattr(output, key), value, atol=1e-5, rtol=0)
        assert source.output_shapes()[key] == tuple(value.shape[1:])
    assert (teacher.family, teacher.text) == ("timm", None)
    assert source.input_px == tuple(pixels.shape[2:])


def test_the_fingerprint_covers_weights_and_the_field(tmp_path: Path) -> None:
    weights = tmp_path / "weights.safetensors"
    write_weights(weights)
    tower = open_teacher(f"timm/{NAME}@{weights}").tower("image")
    identity = tower.identity(compute_dtype="float32", cache=tmp_path)
    assert identity["architecture"] == {"model": NAME, "grid": [10, 10]}
    # 160 pixels of 168, to which timm resizes (crop_pct 0.95).
    assert identity["preprocessing"]["field"] == pytest.approx(160 / 168)


def test_what_cannot_teach_is_refused_by_name(tmp_path: Path) -> None:
    weights = tmp_path / "weights.safetensors"
    save_file({"a": torch.zeros(1)}, weights)
    with pytest.raises(CheckpointError, match="expected a file of weights after @"):
        open_teacher(f"timm/{NAME}@{tmp_path}/nothing")
    with pytest.raises(CheckpointError, match="expected a vision transformer with a square patch"):
        open_teacher(f"timm/resnet18@{weights}").tower("image").output_shapes()
    with pytest.raises(CheckpointError, match="expected the name of a model in timm"):
        open_teacher(f"timm/no_such_model@{weights}").tower("image").output_shapes()
    with pytest.raises(CheckpointError, match="expected the tensors of timm's test_vit"):
        open_teacher(f"timm/{NAME}@{weights}").tower("image").load("float32", "cpu")
