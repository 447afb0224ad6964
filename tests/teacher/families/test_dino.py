"""DINO checkpoints give the library's own numbers, without class token and registers in the grid."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from torch.nn import functional

from pipeline.errors import CheckpointError
from teacher.families.dino import DEFAULTS
from teacher.open import open_teacher
from tests.teacher.families.conftest import centre, library_pixels
from tests.teacher.families.tiny_checkpoints import write_dino

NUM_PREFIX = {"dinov2": 1, "dinov2_with_registers": 5, "dinov3_vit": 4}


@pytest.mark.parametrize("model_type", NUM_PREFIX)
def test_pixels_pooled_and_dense_are_the_librarys(
    model_type: str, tmp_path: Path, images: list[Any]
) -> None:
    model = write_dino(tmp_path, model_type)
    teacher = open_teacher(str(tmp_path))
    tower = teacher.tower("image").load("float32", "cpu")
    pixels = tower.preprocess(images)
    shown = [centre(i) if model_type == "dinov3_vit" else i for i in images]
    assert torch.equal(pixels, torch.stack([library_pixels(tmp_path, image) for image in shown]))
    with torch.no_grad():
        library = model(pixel_values=pixels)
    output: Any = tower.encode(pixels, patch=True)
    torch.testing.assert_close(output.pooled, library.pooler_output, atol=1e-5, rtol=0)
    embedding = functional.normalize(library.last_hidden_state[:, 0], dim=-1)
    torch.testing.assert_close(output.embedding, embedding, atol=1e-5, rtol=0)
    tokens = library.last_hidden_state[:, NUM_PREFIX[model_type] :]
    torch.testing.assert_close(
        output.patch, functional.normalize(tokens, dim=-1), atol=1e-5, rtol=0
    )
    assert output.patch.shape == (4, 16, 16)
    assert teacher.tower("image").output_shapes() == {"embedding": (16,), "patch": (16, 16)}
    assert teacher.text is None


def test_a_classifiers_checkpoint_is_read_without_its_head(tmp_path: Path) -> None:
    write_dino(tmp_path)
    config = transformers.Dinov2Config.from_pretrained(tmp_path)
    whole = transformers.Dinov2ForImageClassification(config).eval()
    whole.save_pretrained(tmp_path)
    tower = open_teacher(str(tmp_path)).tower("image").load("float32", "cpu")
    pixels = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = functional.normalize(whole.dinov2(pixels).pooler_output, dim=-1)
    torch.testing.assert_close(tower.encode(pixels).embedding, expected, atol=1e-5, rtol=0)


def test_the_crop_shows_a_share_of_the_centred_square(tmp_path: Path) -> None:
    write_dino(tmp_path)
    tower = open_teacher(str(tmp_path)).tower("image")
    preprocessing = tower.identity(compute_dtype="float32", cache=tmp_path)["preprocessing"]
    assert preprocessing["field"] == 32 / 40


def test_a_size_that_patches_do_not_divide_is_refused(tmp_path: Path) -> None:
    write_dino(tmp_path, patch_size=7)
    with pytest.raises(
        CheckpointError, match="patch_size: expected a divisor of the processor's 32"
    ):
        open_teacher(str(tmp_path))


def test_our_defaults_are_the_librarys() -> None:
    library = {
        "dinov2": transformers.Dinov2Config(),
        "dinov2_with_registers": transformers.Dinov2WithRegistersConfig(),
        "dinov3_vit": transformers.DINOv3ViTConfig(),
    }
    for model_type, ours in DEFAULTS.items():
        for name, value in ours.items():
            assert getattr(library[model_type], name, 0) == value, (model_type, name)
