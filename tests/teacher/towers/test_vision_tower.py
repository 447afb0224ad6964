"""Towers against the golden tensors, and the five silent-wrong-number traps."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch.nn import functional

import teacher
from pipeline.errors import CheckpointError, ConfigError
from teacher.towers.vision_tower import Tower, TowerOutput

LOCAL = [("LanguageBind_Depth", "depth")]
SHARED = [
    ("image", "image"),
    ("depth", "depth"),
    ("thermal", "thermal"),
]
"""Video, audio and temporal attention are in tests/examples."""
NORMALISED, POOLED, HIDDEN = 1e-5, 5e-5, 2e-4
"""Absolute tolerances of the golden set's own documentation."""


def assert_output(output: TowerOutput, io: dict[str, torch.Tensor], suffix: str = "") -> None:
    for name, found, atol in (
        ("normalized", output.embedding, NORMALISED),
        ("pooler_output", output.pooled, POOLED),
        ("projected", output.projected, POOLED),
        ("last_hidden_state", output.last_hidden_state, HIDDEN),
    ):
        torch.testing.assert_close(found, io[name + suffix], atol=atol, rtol=0)


@pytest.fixture(scope="module")
def depth(goldens: Path) -> Tower:
    return teacher.load_tower(str(goldens), "depth")


@pytest.fixture(scope="module")
def depth_io(goldens: Path) -> dict[str, torch.Tensor]:
    return load_file(goldens / "LanguageBind_Depth" / "io.safetensors")


@pytest.mark.parametrize(("folder", "modality"), LOCAL)
def test_equals_the_goldens(goldens: Path, folder: str, modality: str) -> None:
    io = load_file(goldens / folder / "io.safetensors")
    tower = teacher.load_tower(str(goldens / folder), modality)
    assert_output(tower.encode(io["pixel_values"]), io)
    assert tower.logit_scale == pytest.approx(float(io["logit_scale"]))


@pytest.mark.parametrize(("folder", "modality"), SHARED)
def test_vision_outputs_equal_the_full_golden_set(shared: Path, folder: str, modality: str) -> None:
    io = load_file(shared / "languagebind" / folder / "io.safetensors")
    tower = teacher.load_tower(str(shared / "languagebind" / folder), modality)
    assert_output(tower.encode(io["pixel_values"]), io)
    if "pixel_values_5d" in io:
        assert_output(tower.encode(io["pixel_values_5d"]), io, "_5d")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize(("folder", "modality"), LOCAL)
def test_an_accelerator_gives_the_same(goldens: Path, folder: str, modality: str) -> None:
    io = load_file(goldens / folder / "io.safetensors")
    tower = teacher.load_tower(str(goldens / folder), modality, device="cuda")
    embedding = tower.encode(io["pixel_values"]).embedding
    assert embedding.device.type == "cuda"
    torch.testing.assert_close(embedding.cpu(), io["normalized"], atol=NORMALISED, rtol=0)


def test_bin_and_safetensors_give_the_same(shared: Path, tmp_path: Path) -> None:
    source = shared / "languagebind" / "depth"
    for name in ("config.json", "pytorch_model.bin"):
        (tmp_path / name).write_bytes((source / name).read_bytes())
    pixels = load_file(source / "io.safetensors")["pixel_values"]
    from_bin = teacher.load_tower(str(tmp_path), "depth").encode(pixels)
    from_safetensors = teacher.load_tower(str(source), "depth").encode(pixels)
    assert torch.equal(from_bin.embedding, from_safetensors.embedding)


def test_the_huge_layout_keeps_its_config_in_a_dict(goldens: Path, tmp_path: Path) -> None:
    """`vision_config_dict` holds the LanguageBind fields and wins over a misleading section."""
    source = goldens / "LanguageBind_Depth"
    config = json.loads((source / "config.json").read_text())
    config["vision_config_dict"] = config["vision_config"]
    config["vision_config"] = {**config["vision_config"], "lora_r": 2, "hidden_size": 1280}
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "model.safetensors").symlink_to(source / "model.safetensors")
    io = load_file(source / "io.safetensors")
    assert_output(teacher.load_tower(str(tmp_path), "depth").encode(io["pixel_values"]), io)


def test_the_config_that_upstream_itself_saves_is_read(shared: Path, tmp_path: Path) -> None:
    """It turns image_size into a list, which upstream cannot load again."""
    for folder, modality in SHARED:
        source = shared / "languagebind" / folder
        target = tmp_path / folder
        target.mkdir()
        (target / "config.json").symlink_to(source / "config.upstream_saved.json")
        (target / "model.safetensors").symlink_to(source / "model.safetensors")
        io = load_file(source / "io.safetensors")
        assert_output(teacher.load_tower(str(target), modality).encode(io["pixel_values"]), io)


def test_trap_1_lora_is_merged(
    goldens: Path, depth_dir: Path, depth_io: dict[str, torch.Tensor]
) -> None:
    """Dropping the LoRA pairs moves the unit vector by 0.2 or more; such a file is not ours."""
    from safetensors.torch import save_file

    state = load_file(depth_dir / "model.safetensors")
    save_file({n: t for n, t in state.items() if ".lora_" not in n}, depth_dir / "m.safetensors")
    (depth_dir / "m.safetensors").replace(depth_dir / "model.safetensors")
    with pytest.raises(CheckpointError, match="lora_r = 4, the tensors say 0"):
        teacher.load_tower(str(depth_dir), "depth")
    config = json.loads((depth_dir / "config.json").read_text())
    config["vision_config"]["lora_r"] = 0
    (depth_dir / "config.json").write_text(json.dumps(config))
    bare = teacher.load_tower(str(depth_dir), "depth").encode(depth_io["pixel_values"])
    assert (bare.embedding - depth_io["normalized"]).abs().max() > 0.2


def test_trap_2_projection_width_is_the_top_level_one(depth: Tower) -> None:
    assert depth.files.config.vision["projection_dim"] == 512
    assert depth.embedding_dim == 32


def test_trap_3_no_antialiasing_unless_asked_for(goldens: Path) -> None:
    picture = goldens / "depth_0_160x121_mm16.png"
    plain = teacher.load_tower(str(goldens), "depth")
    smooth = teacher.load_tower(str(goldens), "depth", antialias=True)
    difference = (plain.preprocess([picture]) - smooth.preprocess([picture])).abs().max()
    assert not plain.preprocessing.antialias
    assert difference > 0.05


def test_trap_4_depth_is_millimetres_clipped_at_max_depth(depth: Tower) -> None:
    import numpy as np

    metres = np.full((48, 48), 5_000, np.uint16)
    pixels = depth.preprocess([metres, np.zeros_like(metres), np.full_like(metres, 30_000)])
    red = pixels[:, 0, 0, 0] * 0.26862954 + 0.48145466
    torch.testing.assert_close(red, torch.tensor([0.5, 0.001, 1.0]), atol=1e-6, rtol=0)


def test_trap_5_normed_class_tokens_are_averaged_over_frames(
    depth: Tower, depth_io: dict[str, torch.Tensor]
) -> None:
    frames = torch.stack([depth_io["pixel_values"], depth_io["pixel_values"].flip(0)], dim=2)
    output = depth.encode(frames)
    single = depth.encode(depth_io["pixel_values"]).pooled
    expected = single.mean(dim=0, keepdim=True).expand(2, -1)
    torch.testing.assert_close(output.pooled, expected, atol=1e-5, rtol=0)
    assert output.last_hidden_state.shape[0] == 4


def test_one_frame_equals_no_frame_axis(depth: Tower, depth_io: dict[str, torch.Tensor]) -> None:
    pixels = depth_io["pixel_values"]
    assert torch.equal(depth.encode(pixels[:, :, None]).pooled, depth.encode(pixels).pooled)


@pytest.mark.parametrize("shape", [(1, 3, 64, 64), (3, 48, 48), (1, 1, 48, 48)])
def test_pixel_values_of_another_form_are_refused(depth: Tower, shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="expected .*48, 48"):
        depth.encode(torch.zeros(shape))


def test_patch_embeddings_are_unit_vectors_of_the_grid(
    depth: Tower, depth_io: dict[str, torch.Tensor]
) -> None:
    patch = depth.encode(depth_io["pixel_values"], patch=True).patch
    assert patch is not None
    assert patch.shape == (2, 9, 32)
    torch.testing.assert_close(patch.norm(dim=-1), torch.ones(2, 9))
    assert depth.encode(depth_io["pixel_values"]).patch is None


@pytest.mark.parametrize(("dtype", "atol"), [("bfloat16", 0.03), ("float16", 0.005)])
def test_half_precision_stays_close(
    goldens: Path, depth_io: dict[str, torch.Tensor], dtype: str, atol: float
) -> None:
    tower = teacher.load_tower(str(goldens), "depth", dtype=dtype)
    output = tower.encode(depth_io["pixel_values"])
    assert output.embedding.dtype == torch.float32
    torch.testing.assert_close(output.embedding, depth_io["normalized"], atol=atol, rtol=0)
    cosine = functional.cosine_similarity(output.embedding, depth_io["normalized"])
    assert cosine.min() > 0.999


def test_a_wrong_modality_or_option_is_refused(goldens: Path) -> None:
    with pytest.raises(CheckpointError, match="expected the thermal tower, found the depth tower"):
        teacher.load_tower(str(goldens / "LanguageBind_Depth"), "thermal")
    with pytest.raises(ConfigError, match="no option 'max_depth'; expected one of size_px"):
        teacher.load_tower(str(goldens), "depth", max_depth=5)
    with pytest.raises(ConfigError, match=r"teacher\.dtype: expected one of float32"):
        teacher.load_tower(str(goldens), "depth", dtype="int8")
