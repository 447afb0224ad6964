"""Checkpoint tensors: LoRA merging and strictness."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from pipeline.errors import CheckpointError
from pipeline.formats.weight_files import read_tensors
from teacher.checkpoints.hub_config import read_config
from teacher.checkpoints.tensors import merge_lora, plain_state
from teacher.towers.vision_tower import load_tower

Q = "vision_model.encoder.base_model.model.layers.0.self_attn.q_proj"


def rewrite(folder: Path, change: object) -> None:
    """Apply `change(state)` to the folder's tensors."""
    path = folder / "model.safetensors"
    state = {name: tensor.clone() for name, tensor in load_file(path).items()}
    change(state)  # type: ignore[operator]
    save_file(state, path)


def test_merge_is_weight_plus_scaled_product() -> None:
    generator = torch.Generator().manual_seed(0)
    weight, down, up = (torch.randn(s, generator=generator) for s in ((5, 3), (2, 3), (5, 2)))
    state = {
        "q.weight": weight,
        "q.lora_A.default.weight": down,
        "q.lora_B.default.weight": up,
        "other": torch.ones(1),
    }
    merged = merge_lora(state, alpha=16.0, where="here")
    expected = weight.double() + 16.0 / 2 * up.double() @ down.double()
    torch.testing.assert_close(merged["q.weight"].double(), expected, atol=1e-5, rtol=0)
    assert sorted(merged) == ["other", "q.weight"]


def test_half_precision_files_are_merged_in_fp32() -> None:
    state = {
        "q.weight": torch.ones(1, 1, dtype=torch.float16),
        "q.lora_A.default.weight": torch.full((1, 1), 2.0**-8, dtype=torch.float16),
        "q.lora_B.default.weight": torch.full((1, 1), 2.0**-8, dtype=torch.float16),
    }
    merged = merge_lora(state, alpha=1.0, where="here")["q.weight"]
    assert merged.item() == 1.0 + 2.0**-16


def test_both_peft_spellings_read_the_same(depth_dir: Path) -> None:
    config = read_config(depth_dir / "config.json")
    old = read_tensors(depth_dir / "model.safetensors")
    stems = [name.removesuffix(".lora_A.default.weight") for name in old if ".lora_A." in name]
    renamed = {
        f"{s}.{kind}": f"{s}.base_layer.{kind}" for s in stems for kind in ("weight", "bias")
    }
    new = {renamed.get(name, name): tensor for name, tensor in old.items()}
    assert old.keys() != new.keys()
    first, second = plain_state(old, config, "old"), plain_state(new, config, "new")
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.pop("visual_projection.weight"), "missing visual_projection.weight"),
        (lambda s: s.pop("logit_scale"), "missing logit_scale"),
        (lambda s: s.pop("text_projection.weight"), "missing text_projection.weight"),
        (lambda s: s.update(extra=torch.ones(1)), "unexpected extra"),
        (
            lambda s: s.update({f"{Q}.bias": torch.ones(7)}),
            r"self_attn\.q_proj\.bias: expected \(48,\), found \(7,\)",
        ),
        (lambda s: s.pop(f"{Q}.lora_B.default.weight"), "both lora_A and lora_B"),
        (
            lambda s: s.update({f"{Q}.lora_B.default.weight": torch.ones(48, 3)}),
            r"expected lora_B @ lora_A of shape \(48, 48\)",
        ),
    ],
    ids=["missing", "no-scale", "no-text", "unexpected", "shape", "half-a-pair", "lora-shape"],
)
def test_every_departure_is_named(depth_dir: Path, change: object, message: str) -> None:
    rewrite(depth_dir, change)
    with pytest.raises(CheckpointError, match=message):
        load_tower(str(depth_dir), "depth")


def test_a_tower_without_its_text_half_loads(depth_dir: Path) -> None:
    def drop(state: dict[str, torch.Tensor]) -> None:
        for name in [name for name in state if name.startswith("text_")]:
            del state[name]

    rewrite(depth_dir, drop)
    assert load_tower(str(depth_dir), "depth").embedding_dim == 32


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("num_attention_heads", 5, "num_attention_heads divides, found 48 and 5"),
        ("lora_r", 2, "lora_r = 2, the tensors say 4"),
        ("num_frames", 8, "num_frames = 8, the tensors say 1"),
        ("add_time_attn", True, "add_time_attn = True, the tensors say False"),
        ("clip_type", "vl_new", "clip_type = vl_new, the tensors say 2-D patch kernel"),
        ("image_size", 64, "4 x 4 patch grid, i.e. 17 positions; the tensors have 10"),
        ("num_hidden_layers", 2, "unexpected vision_model.encoder.layers.2"),
        ("hidden_size", 64, r"expected \(64,"),
    ],
)
def test_a_contradicting_config_is_refused(
    depth_dir: Path, field: str, value: object, message: str
) -> None:
    config = json.loads((depth_dir / "config.json").read_text())
    config["vision_config"][field] = value
    (depth_dir / "config.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match=message):
        load_tower(str(depth_dir), "depth")
