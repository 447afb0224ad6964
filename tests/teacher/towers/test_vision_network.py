"""The vision network against plain transformers classes and naive references."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor
from torch.nn import functional
from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

from teacher.towers.vision_network import TemporalLayer, VisionLayout, VisionNetwork, patch_product

SQUARE = VisionLayout(
    hidden_size=16,
    intermediate_size=24,
    num_layers=2,
    num_heads=2,
    patch_px=8,
    grid=(2, 2),
    projection_dim=12,
)
CLIP = replace(SQUARE, temporal=True, num_frames=3)


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


def naive_attention(layer: torch.nn.Module, x_TD: Tensor, num_heads: int) -> Tensor:
    """Attention over rows, head by head."""
    heads = []
    queries, keys, values = (getattr(layer, f"{n}_proj")(x_TD) for n in "qkv")
    for q, k, v in zip(*(t.chunk(num_heads, -1) for t in (queries, keys, values)), strict=True):
        heads.append((q @ k.T / q.shape[-1] ** 0.5).softmax(-1) @ v)
    return layer.out_proj(torch.cat(heads, -1))


@torch.no_grad()
@pytest.mark.parametrize("temporal_mlp", [False, True])
def test_frames_are_mixed_per_token_within_a_sample(temporal_mlp: bool) -> None:
    layer = network(replace(CLIP, temporal_mlp=temporal_mlp)).vision_model.encoder.layers[0]
    assert isinstance(layer, TemporalLayer)
    hidden = torch.randn(2, 3, 5, 16)
    found = layer.mix_frames(hidden.flatten(0, 1)).view(2, 3, 5, 16)
    for sample in range(2):
        for token in range(5):
            x = hidden[sample, :, token] + layer.temporal_embedding[0]
            x = x + naive_attention(layer.temporal_attn, layer.temporal_layer_norm1(x), 2)
            if temporal_mlp:
                x = x + layer.temporal_mlp(layer.temporal_layer_norm2(x))
            torch.testing.assert_close(found[sample, :, token], x, atol=1e-5, rtol=1e-4)


@torch.no_grad()
def test_a_class_embedding_per_frame_goes_to_its_frame() -> None:
    embeddings = network(replace(CLIP, class_per_frame=True)).vision_model.embeddings
    tokens = embeddings(torch.zeros(6, 3, 16, 16), 3)[:, 0]
    expected = embeddings.class_embedding + embeddings.position_embedding.weight[0]
    torch.testing.assert_close(tokens, expected.repeat(2, 1))


@torch.no_grad()
@pytest.mark.parametrize("layout", [SQUARE, CLIP], ids=["picture", "clip"])
def test_patch_embeddings_equal_a_naive_value_path(layout: VisionLayout) -> None:
    net, frames = network(layout), layout.num_frames
    pixels = torch.randn(2, 3, frames, 16, 16)
    x = net.vision_model.embeddings(pixels.transpose(1, 2).flatten(0, 1), frames)
    x = net.vision_model.pre_layrnorm(x)
    first, last = net.vision_model.encoder.layers
    x = first(x, None)
    if layout.temporal:
        x = last.mix_frames(x)
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
