"""The vision network against plain transformers classes and naive references."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch.nn import functional
from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

from teacher.towers.vision_network import VisionLayout, VisionNetwork, patch_product

SQUARE = VisionLayout(
    hidden_size=16,
    intermediate_size=24,
    num_layers=2,
    num_heads=2,
    patch_px=8,
    grid=(2, 2),
    projection_dim=12,
)


def network(layout: VisionLayout, seed: int = 0) -> VisionNetwork:
    torch.manual_seed(seed)
    made = VisionNetwork(layout).eval()
    with torch.no_grad():
        for parameter in made.parameters():
            if parameter.ndim:
                parameter.copy_(torch.randn_like(parameter) * 0.2)
    return made


@torch.no_grad()
def test_without_temporal_parts_it_is_transformers_clip() -> None:
    ours = network(SQUARE)
    config = CLIPVisionConfig(
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=2,
        num_attention_heads=2,
        patch_size=8,
        image_size=16,
        hidden_act="gelu",
        projection_dim=12,
    )
    theirs = CLIPVisionModelWithProjection(config).eval()
    state = {name: tensor for name, tensor in ours.state_dict().items() if name != "logit_scale"}
    theirs.load_state_dict(state, strict=True)
    pixels = torch.randn(3, 3, 16, 16)
    found, expected = ours(pixels), theirs(pixels)
    torch.testing.assert_close(found.projected, expected.image_embeds)
    torch.testing.assert_close(found.last_hidden_state, expected.last_hidden_state)


@torch.no_grad()
@pytest.mark.parametrize("frames", [1, 3])
def test_patch_embeddings_equal_a_naive_value_path(frames: int) -> None:
    net = network(SQUARE)
    pixels = torch.randn(2, 3, frames, 16, 16)
    x = net.vision_model.embeddings(pixels.transpose(1, 2).flatten(0, 1))
    x = net.vision_model.pre_layrnorm(x)
    first, last = net.vision_model.encoder.layers
    x = first(x, None)
    expected = torch.empty(2, 4, 12)
    for sample in range(2):
        for patch in range(4):
            normed = []
            for frame in range(frames):
                token = last.layer_norm1(x[sample * frames + frame, 1 + patch])
                value = last.self_attn.v_proj.weight @ token + last.self_attn.v_proj.bias
                out = last.self_attn.out_proj.weight @ value + last.self_attn.out_proj.bias
                normed.append(net.vision_model.post_layernorm(out))
            projected = net.visual_projection.weight @ torch.stack(normed).mean(0)
            expected[sample, patch] = functional.normalize(projected, dim=0)
    torch.testing.assert_close(net(pixels, patch=True).patch, expected, atol=1e-5, rtol=1e-4)


@torch.no_grad()
def test_the_patch_product_is_the_convolution() -> None:
    frames, kernel = torch.randn(2, 3, 16, 40), torch.randn(5, 3, 8, 8)
    expected = functional.conv2d(frames, kernel, stride=8).flatten(2).transpose(1, 2)
    torch.testing.assert_close(patch_product(frames, kernel), expected, atol=1e-4, rtol=1e-4)


@torch.no_grad()
def test_the_grid_may_be_rectangular() -> None:
    net = network(replace(SQUARE, grid=(2, 5)))
    output = net(torch.randn(1, 3, 16, 40), patch=True)
    assert output.last_hidden_state.shape == (1, 11, 16)
    assert output.patch.shape == (1, 10, 12)
    with pytest.raises(ValueError, match=r"\(B, 3, 16, 40\)"):
        net(torch.randn(1, 3, 40, 16))


def test_the_network_is_trainable() -> None:
    net = network(SQUARE)
    net(torch.randn(1, 3, 16, 16), patch=True).patch.sum().backward()
    assert net.visual_projection.weight.grad is not None
