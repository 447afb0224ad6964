"""CLIP checkpoints give the library's own numbers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional
from transformers import AutoTokenizer, CLIPModel, CLIPTextConfig, CLIPVisionConfig

from pipeline.errors import CheckpointError, ConfigError
from teacher.checkpoints.hub_config import CLIP_VISION_DEFAULTS, TEXT_DEFAULTS
from teacher.open import open_teacher
from tests.teacher.families.conftest import library_pixels
from tests.teacher.families.tiny_checkpoints import square, write_clip

TEXTS = ["a photo of a car.", "Road", "a very long text " * 10]


@pytest.fixture
def clip(tmp_path: Path) -> CLIPModel:
    return write_clip(tmp_path)


def test_what_is_known_without_weights(clip: CLIPModel, tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").unlink()
    teacher = open_teacher(str(tmp_path))
    tower = teacher.tower("image", antialias=True)
    assert (teacher.family, teacher.towers) == ("CLIP", ("image",))
    assert tower.input_px == (32, 32)
    assert tower.output_shapes() == {"embedding": (12,), "patch": (16, 12)}
    assert teacher.text is not None
    assert teacher.text.embedding_dim == 12


def test_pixels_are_the_processors_own(clip: CLIPModel, tmp_path: Path, images: list[Any]) -> None:
    tower = open_teacher(str(tmp_path)).tower("image").load("float32", "cpu")
    expected = torch.stack([library_pixels(tmp_path, image) for image in images])
    assert torch.equal(tower.preprocess(images), expected)


def test_pooled_and_projected_are_the_librarys(
    clip: CLIPModel, tmp_path: Path, images: list[Any]
) -> None:
    tower = open_teacher(str(tmp_path)).tower("image").load("float32", "cpu")
    pixels = tower.preprocess(images)
    with torch.no_grad():
        pooled = clip.vision_model(pixel_values=pixels).pooler_output
        projected = clip.visual_projection(pooled)
    output: Any = tower.encode(pixels)
    torch.testing.assert_close(output.pooled, pooled, atol=1e-5, rtol=0)
    torch.testing.assert_close(output.projected, projected, atol=1e-5, rtol=0)
    expected = functional.normalize(projected, dim=-1)
    torch.testing.assert_close(output.embedding, expected, atol=1e-5, rtol=0)
    assert output.patch is None


def test_dense_is_the_value_path_of_the_last_layer(
    clip: CLIPModel, tmp_path: Path, images: list[Any]
) -> None:
    """Against the library's own layer with attention that looks at itself alone."""
    tower = open_teacher(str(tmp_path)).tower("image").load("float32", "cpu")
    pixels = tower.preprocess(images)
    layer = clip.vision_model.encoder.layers[-1]
    with torch.no_grad():
        states = clip.vision_model(pixel_values=pixels, output_hidden_states=True).hidden_states
        tokens = layer.layer_norm1(states[-2])[:, 1:]
        # One token at a time: softmax over a single key is 1.
        rows = [layer.self_attn(token[:, None], None)[0][:, 0] for token in tokens.unbind(1)]
        dense = clip.visual_projection(clip.vision_model.post_layernorm(torch.stack(rows, 1)))
    expected = functional.normalize(dense, dim=-1)
    torch.testing.assert_close(tower.encode(pixels, patch=True).patch, expected, atol=1e-5, rtol=0)


def test_texts_are_the_librarys(clip: CLIPModel, tmp_path: Path) -> None:
    text = open_teacher(str(tmp_path)).text
    assert text is not None
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    rows = tokenizer(TEXTS, padding=True, truncation=True, max_length=40, return_tensors="pt")
    with torch.no_grad():
        projected = clip.text_projection(clip.text_model(**rows).pooler_output)
    loaded = text.load("float32", "cpu")
    expected = functional.normalize(projected, dim=-1)
    torch.testing.assert_close(loaded.encode(TEXTS), expected, atol=1e-5, rtol=0)
    assert loaded.encode([]).shape == (0, 12)


def test_sixteen_bits_and_grey_images(clip: CLIPModel, tmp_path: Path, images: list[Any]) -> None:
    tower = open_teacher(str(tmp_path)).tower("image").load("float32", "cpu")
    # Smooth, since 8-bit noise saturates where a cubic kernel overshoots.
    image = np.add.outer(np.arange(40), np.arange(150, dtype=np.uint8).reshape(50, 3)).astype(
        "uint8"
    )
    wide = tower.preprocess([image.astype("uint16") * 257])
    torch.testing.assert_close(wide, tower.preprocess([image]), atol=0.02, rtol=0)
    grey = image[..., 0]
    assert torch.equal(tower.preprocess([grey]), tower.preprocess([grey[..., None].repeat(3, 2)]))
    with pytest.raises(ValueError, match=r"sample 1: expected \(H, W\) or \(H, W, 3\)"):
        tower.preprocess([image, image[..., :2]])


def test_the_fingerprint_covers_weights_processor_and_arithmetic(
    clip: CLIPModel, tmp_path: Path
) -> None:
    def identity(dtype: str = "float32") -> dict[str, Any]:
        tower = open_teacher(str(tmp_path)).tower("image")
        return tower.identity(compute_dtype=dtype, cache=tmp_path / "cache")

    base = identity()
    assert base == identity()
    assert base == json.loads(json.dumps(base))
    assert base != identity("bfloat16")
    path = tmp_path / "preprocessor_config.json"
    path.write_text(path.read_text().replace("0.48145466", "0.5"))
    assert base != identity()


def test_another_image_size_than_the_processors_is_refused(tmp_path: Path) -> None:
    write_clip(tmp_path, size={"shortest_edge": 24}, crop_size=square(24))
    with pytest.raises(CheckpointError, match="image_size: expected 24 as the image processor"):
        open_teacher(str(tmp_path))


def test_other_towers_and_options_are_refused(clip: CLIPModel, tmp_path: Path) -> None:
    teacher = open_teacher(str(tmp_path))
    with pytest.raises(CheckpointError, match="expected a depth tower, found a CLIP teacher"):
        teacher.tower("depth")
    with pytest.raises(ConfigError, match="no option 'max_depth_m'"):
        teacher.tower("image", max_depth_m=5)


def test_weights_of_another_shape_are_refused(clip: CLIPModel, tmp_path: Path) -> None:
    config = json.loads((tmp_path / "config.json").read_text())
    config["vision_config"]["num_hidden_layers"] = 3
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match="found no usable .*layers.2"):
        open_teacher(str(tmp_path)).tower("image").load("float32", "cpu")


def test_our_defaults_are_the_librarys() -> None:
    vision, text = CLIPVisionConfig(), CLIPTextConfig()
    for name in (
        "hidden_size",
        "intermediate_size",
        "num_hidden_layers",
        "patch_size",
        "image_size",
    ):
        assert CLIP_VISION_DEFAULTS[name] == getattr(vision, name)
    for name in ("hidden_act", "layer_norm_eps", "num_attention_heads"):
        assert CLIP_VISION_DEFAULTS[name] == getattr(vision, name)
        assert TEXT_DEFAULTS[name] == getattr(text, name)
    assert TEXT_DEFAULTS["max_position_embeddings"] == text.max_position_embeddings
