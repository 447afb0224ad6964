"""The self-tests of a teacher."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from pipeline.errors import CheckpointError
from teacher.check_tower import as_lines, check_towers
from teacher.checkpoints.locate import towers_in


def test_a_good_teacher_passes(goldens: Path, tmp_path: Path) -> None:
    depth, text = check_towers(str(goldens), cache=tmp_path)
    weights = goldens / "LanguageBind_Depth" / "model.safetensors"
    assert (depth.tower, text.tower) == ("depth", "text")
    assert depth.passed
    assert text.passed
    assert depth.digest == hashlib.sha256(weights.read_bytes()).hexdigest()
    assert depth.logit_scale == pytest.approx(2.8733, abs=1e-4)
    assert (depth.input_px, text.input_px) == ((48, 48), (1, 77))
    assert [check.name for check in depth.checks][-1] == "LoRA effect"
    assert "LoRA effect" not in [check.name for check in text.checks]
    assert any("12 pairs" in line for line in as_lines(depth))


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision_passes_within_its_rounding(
    goldens: Path, tmp_path: Path, dtype: str
) -> None:
    assert all(report.passed for report in check_towers(str(goldens), cache=tmp_path, dtype=dtype))


def test_a_lora_pair_without_effect_is_reported(depth_dir: Path, tmp_path: Path) -> None:
    path = depth_dir / "model.safetensors"
    state = {name: tensor.clone() for name, tensor in load_file(path).items()}
    name = next(name for name in state if ".lora_B." in name)
    state[name] = torch.zeros_like(state[name])
    save_file(state, path)
    depth, _ = check_towers(str(depth_dir), cache=tmp_path, towers=["depth"])
    assert not depth.passed
    assert [check.name for check in depth.checks if not check.passed] == ["LoRA effect"]
    assert any(line.startswith("  FAIL LoRA effect") for line in as_lines(depth))


def test_a_dead_tower_is_reported(depth_dir: Path, tmp_path: Path) -> None:
    path = depth_dir / "model.safetensors"
    state = {name: tensor.clone() for name, tensor in load_file(path).items()}
    state["visual_projection.weight"][:] = 0
    save_file(state, path)
    depth, _ = check_towers(str(depth_dir), cache=tmp_path)
    failed = [check.name for check in depth.checks if not check.passed]
    assert failed == ["unit norm", "input dependence"]


def test_a_folder_without_towers_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"LanguageBind_<Tower>/config\.json, found none"):
        towers_in(str(tmp_path))
    assert len(towers_in("LanguageBind")) == 3
