"""SigLIP checkpoints give the library's own numbers."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn import functional
from transformers import AutoTokenizer, SiglipModel, SiglipTextConfig, SiglipVisionConfig

from pipeline.errors import CheckpointError
from teacher.families.siglip import TEXT_DEFAULTS, VISION_DEFAULTS
from teacher.open import open_teacher
from tests.teacher.families.conftest import centre, library_pixels
from tests.teacher.families.tiny_checkpoints import write_siglip

TEXTS = ["a photo of a Car.", "road", "a very long text " * 5]


@pytest.fixture
def siglip(tmp_path: Path) -> SiglipModel:
    return write_siglip(tmp_path)


def test_pixels_are_the_processors_own_of_the_centred_square(
    siglip: SiglipModel, tmp_path: Path, images: list[Any]
) -> None:
    tower = open_teacher(str(tmp_path)).tower("image").load("float32", "cpu")
    expected = torch.stack([library_pixels(tmp_path, centre(image)) for image in images])
    assert torch.equal(tower.preprocess(images), expected)
    assert torch.equal(expected[2], library_pixels(tmp_path, images[2]))


def test_pooled_is_the_librarys(siglip: SiglipModel, tmp_path: Path, images: list[Any]) -> None:
    tower = open_teacher(str(tmp_path)).tower("image").load("float32", "cpu")
    pixels = tower.preprocess(images)
    with torch.no_grad():
        pooled = siglip.vision_model(pixel_values=pixels).pooler_output
    output: Any = tower.encode(pixels)
    torch.testing.assert_close(output.pooled, pooled, atol=1e-5, rtol=0)
    torch.testing.assert_close(output.projected, pooled, atol=1e-5, rtol=0)
    expected = functional.normalize(pooled, dim=-1)
    torch.testing.assert_close(output.embedding, expected, atol=1e-5, rtol=0)


def test_dense_is_the_head_on_the_value_path_of_each_patch(
    siglip: SiglipModel, tmp_path: Path, images: list[Any]
) -> None:
    """Against the head's own weights: value projection, output projection, then its MLP."""
    tower = open_teacher(str(tmp_path)).tower("image").load("float32", "cpu")
    pixels = tower.preprocess(images)
    head = siglip.vision_model.head
    with torch.no_grad():
        tokens = siglip.vision_model(pixel_values=pixels).last_hidden_state
        weight, bias = head.attention.in_proj_weight, head.attention.in_proj_bias
        width = tokens.shape[-1]
        values = functional.linear(tokens, weight[2 * width :], bias[2 * width :])
        values = head.attention.out_proj(values)
        dense = values + head.mlp(head.layernorm(values))
    expected = functional.normalize(dense, dim=-1)
    torch.testing.assert_close(tower.encode(pixels, patch=True).patch, expected, atol=1e-5, rtol=0)
    assert open_teacher(str(tmp_path)).tower("image").output_shapes() == {
        "embedding": (16,),
        "patch": (16, 16),
    }


def test_texts_are_the_librarys_of_lower_case(siglip: SiglipModel, tmp_path: Path) -> None:
    text = open_teacher(str(tmp_path)).text
    assert text is not None
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    rows = tokenizer(
        [words.lower() for words in TEXTS],
        padding="max_length",
        truncation=True,
        max_length=24,
        return_tensors="pt",
    )
    with torch.no_grad():
        pooled = siglip.text_model(**rows).pooler_output
    loaded = text.load("float32", "cpu")
    expected = functional.normalize(pooled, dim=-1)
    torch.testing.assert_close(loaded.encode(TEXTS), expected, atol=1e-5, rtol=0)
    assert torch.equal(loaded.encode(["CAR"]), loaded.encode(["car"]))


def test_naflex_is_refused_by_name(siglip: SiglipModel, tmp_path: Path) -> None:
    config = json.loads((tmp_path / "config.json").read_text()) | {"model_type": "siglip2"}
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match="model_type siglip2: the NaFlex form"):
        open_teacher(str(tmp_path))


def test_a_model_without_its_pooling_head_is_refused(tmp_path: Path) -> None:
    write_siglip(tmp_path, vision_use_head=False)
    with pytest.raises(CheckpointError, match="vision_use_head: expected true"):
        open_teacher(str(tmp_path))


def test_our_defaults_are_the_librarys() -> None:
    for ours, library in (
        (VISION_DEFAULTS, SiglipVisionConfig()),
        (TEXT_DEFAULTS, SiglipTextConfig()),
    ):
        for name in ours.keys() - {"projection_size"}:
            assert ours[name] == getattr(library, name), name


def test_the_library_s_warnings_about_its_own_defaults_are_not_printed(
    siglip: SiglipModel, tmp_path: Path
) -> None:
    load = (
        "from teacher.open import open_teacher; "
        f"open_teacher({str(tmp_path)!r}).tower('image').load('float32', 'cpu')"
    )
    done = subprocess.run([sys.executable, "-c", load], capture_output=True, text=True, check=True)
    assert done.stdout + done.stderr == ""
