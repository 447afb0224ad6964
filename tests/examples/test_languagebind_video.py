"""Video towers and clips against upstream's code, without its random mirror, and naive references."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor
from torch.nn import functional

import teacher
from examples.languagebind_video import (
    ClipLayout,
    ClipNetwork,
    TemporalLayer,
    clip_pixels,
    frame_indices,
    load_video_network,
    read_video,
    video_config,
)
from pipeline.errors import CheckpointError

SHARED = ["video", "video_ft", "video_v15_ft", "image_timeattn"]
CLIP = ClipLayout(
    hidden_size=16,
    intermediate_size=24,
    num_layers=2,
    num_heads=2,
    patch_px=8,
    grid=(2, 2),
    projection_dim=12,
    num_frames=3,
)


def network(**changes) -> ClipNetwork:
    from dataclasses import replace

    torch.manual_seed(0)
    made = ClipNetwork(replace(CLIP, **changes)).eval()
    with torch.no_grad():
        for parameter in made.parameters():
            if parameter.ndim:
                parameter.copy_(torch.randn_like(parameter) * 0.2)
    return made


@torch.inference_mode()
def test_equals_the_goldens(goldens: Path, assert_output) -> None:
    io = load_file(goldens / "LanguageBind_Video" / "io.safetensors")
    tower = load_video_network(goldens / "LanguageBind_Video")
    assert_output(tower(io["pixel_values"]), io)
    assert float(tower.logit_scale) == pytest.approx(float(io["logit_scale"]))


@torch.inference_mode()
@pytest.mark.parametrize("folder", SHARED)
def test_video_outputs_equal_the_full_golden_set(shared: Path, folder: str, assert_output) -> None:
    io = load_file(shared / "languagebind" / folder / "io.safetensors")
    tower = load_video_network(shared / "languagebind" / folder)
    assert_output(tower(io["pixel_values"]), io)
    if "pixel_values_5d" in io:
        assert_output(tower(io["pixel_values_5d"]), io, "_5d")


@torch.inference_mode()
@pytest.mark.parametrize("folder", SHARED)
def test_the_config_that_upstream_itself_saves_is_read(
    shared: Path, tmp_path: Path, folder: str, assert_output
) -> None:
    """It turns image_size into a list, which upstream cannot load again."""
    source = shared / "languagebind" / folder
    (tmp_path / "config.json").symlink_to(source / "config.upstream_saved.json")
    (tmp_path / "model.safetensors").symlink_to(source / "model.safetensors")
    io = load_file(source / "io.safetensors")
    assert_output(load_video_network(tmp_path)(io["pixel_values"]), io)


@torch.inference_mode()
def test_the_huge_layout_keeps_its_config_in_a_dict(
    goldens: Path, tmp_path: Path, assert_output
) -> None:
    """`vision_config_dict` holds the LanguageBind fields and wins over a misleading section."""
    source = goldens / "LanguageBind_Video"
    config = json.loads((source / "config.json").read_text())
    config["vision_config_dict"] = config["vision_config"]
    config["vision_config"] = {**config["vision_config"], "num_frames": 1, "hidden_size": 1280}
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "model.safetensors").symlink_to(source / "model.safetensors")
    io = load_file(source / "io.safetensors")
    assert_output(load_video_network(tmp_path)(io["pixel_values"]), io)


def test_every_golden_config_is_parsed(shared: Path) -> None:
    paths = sorted((shared / "languagebind" / "config_cases").glob("video_*.json"))
    assert len(paths) >= 3
    for path in paths:
        case = json.loads(path.read_text())
        expected = case["effective_in_upstream"]
        config = video_config(case["config_json"], path.name)
        assert config.projection_dim == expected["projection_dim"]
        assert config.logit_scale_init == expected["logit_scale_init_value"]
        for section, values in (("vision", config.vision), ("text", config.text)):
            wanted = expected[section]
            assert {name: values[name] for name in wanted} == wanted, path.name


def test_the_package_refuses_temporal_layers(goldens: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(goldens / "LanguageBind_Video", tmp_path / "LanguageBind_Image")
    with pytest.raises(CheckpointError, match="found 'LanguageBindVideo'.*examples/"):
        teacher.load_tower(str(folder), "image")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "model_type": "LanguageBindImage"}))
    with pytest.raises(CheckpointError, match="expected a tower without temporal layers"):
        teacher.load_tower(str(folder), "image")


@pytest.mark.parametrize(
    "shape", [(8, 3, 48, 48), (1, 3, 16, 48, 48), (2, 3, 4, 48, 48)], ids=["flat", "16", "4"]
)
def test_samples_are_never_mixed(goldens: Path, shape: tuple[int, ...]) -> None:
    tower = load_video_network(goldens / "LanguageBind_Video")
    with pytest.raises(ValueError, match="exactly 8 frames"):
        tower(torch.zeros(shape))


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
    layer = network(temporal_mlp=temporal_mlp).vision_model.encoder.layers[0]
    assert isinstance(layer, TemporalLayer)
    hidden = torch.randn(2, 3, 5, 16)
    mixed = layer.mix_frames(hidden.flatten(0, 1)).view(2, 3, 5, 16)
    for sample in range(2):
        for token in range(5):
            x = hidden[sample, :, token] + layer.temporal_embedding[0]
            x = x + naive_attention(layer.temporal_attn, layer.temporal_layer_norm1(x), 2)
            if temporal_mlp:
                x = x + layer.temporal_mlp(layer.temporal_layer_norm2(x))
            torch.testing.assert_close(mixed[sample, :, token], x, atol=1e-5, rtol=1e-4)


@torch.no_grad()
def test_a_class_embedding_per_frame_goes_to_its_frame() -> None:
    embeddings = network(class_per_frame=True).vision_model.embeddings
    tokens = embeddings(torch.zeros(6, 3, 16, 16))[:, 0]
    expected = embeddings.class_embedding + embeddings.position_embedding.weight[0]
    torch.testing.assert_close(tokens, expected.repeat(2, 1))


@torch.no_grad()
def test_patch_embeddings_equal_a_naive_value_path() -> None:
    net = network()
    pixels = torch.randn(2, 3, 3, 16, 16)
    x = net.vision_model.embeddings(pixels.transpose(1, 2).flatten(0, 1))
    first, last = net.vision_model.encoder.layers
    x = last.mix_frames(first(net.vision_model.pre_layrnorm(x), None))
    expected = torch.empty(2, 4, 12)
    for sample in range(2):
        for patch in range(4):
            normed = []
            for frame in range(3):
                token = last.layer_norm1(x[sample * 3 + frame, 1 + patch])
                value = last.self_attn.v_proj.weight @ token + last.self_attn.v_proj.bias
                out = last.self_attn.out_proj.weight @ value + last.self_attn.out_proj.bias
                normed.append(net.vision_model.post_layernorm(out))
            projected = net.visual_projection.weight @ torch.stack(normed).mean(0)
            expected[sample, patch] = functional.normalize(projected, dim=0)
    torch.testing.assert_close(net(pixels, patch=True).patch, expected, atol=1e-5, rtol=1e-4)


def test_pixel_values_equal_the_golden(teacher_goldens: Path) -> None:
    golden = load_file(teacher_goldens / "preprocess.safetensors")
    clip = golden["video_frames_THWC"].numpy()
    pixels = clip_pixels(clip)
    assert pixels.shape == (3, 8, 224, 224)
    torch.testing.assert_close(pixels[:, :, 80:112, 80:112], golden["video"], atol=1e-6, rtol=0)
    assert torch.equal(pixels, clip_pixels(clip))


def test_a_video_file_equals_the_golden(shared: Path) -> None:
    pytest.importorskip("av", reason="PyAV is not installed")
    folder = shared / "languagebind" / "preprocess"
    expected = load_file(folder / "expected.safetensors")["video.all_frames.crop80_144"]
    pixels = clip_pixels(read_video(folder / "inputs" / "video_64x48_23f.avi"))
    torch.testing.assert_close(pixels[:, :, 80:144, 80:144], expected, atol=1e-5, rtol=0)


def test_frames_are_taken_as_upstream_does(shared: Path) -> None:
    meta = json.loads((shared / "languagebind" / "preprocess" / "meta.json").read_text())
    for case, expected in meta["video_frame_index_table"].items():
        total, wanted = map(int, case.split("/"))
        assert frame_indices(total, wanted).tolist() == expected


@pytest.mark.parametrize(("height", "width"), [(30, 50), (50, 30), (64, 64)])
def test_every_aspect_ratio_fills_the_input(height: int, width: int) -> None:
    clip = np.random.default_rng([4]).integers(0, 256, (9, height, width, 3), dtype=np.uint8)
    assert clip_pixels(clip, size_px=32).shape == (3, 8, 32, 32)


def test_a_malformed_clip_is_refused() -> None:
    with pytest.raises(ValueError, match=r"expected \(T, H, W, 3\) uint8 frames"):
        clip_pixels(np.zeros((4, 4, 3), np.uint8))
