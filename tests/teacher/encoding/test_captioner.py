"""Captions by a real (randomly initialised) image-text-to-text model."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from pipeline.config.config import Config
from pipeline.config.teacher import DescriptionsConfig
from pipeline.errors import CheckpointError, ConfigError
from pipeline.modalities import KINDS
from pipeline.shards.manifest import Manifest
from pipeline.targets.descriptions import TextStore, resolve_descriptions
from pipeline.workspace import Workspace
from teacher.encoding.captioner import Captioner, captioner_identity, find_model, render
from teacher.encoding.describe import describe


@pytest.fixture(scope="module")
def blip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A BLIP captioner of a few thousand random weights, saved as the hub has it."""
    import torch
    from transformers import (
        BertTokenizerFast,
        BlipConfig,
        BlipForConditionalGeneration,
        BlipImageProcessor,
        BlipProcessor,
    )

    folder = tmp_path_factory.mktemp("blip")
    words = [
        "[PAD]",
        "[UNK]",
        "[CLS]",
        "[SEP]",
        "[MASK]",
        "[DEC]",
        *["a", "road", "car", "tree", "scene"],
    ]
    (folder / "vocab.txt").write_text("\n".join(words))
    tokenizer = BertTokenizerFast(str(folder / "vocab.txt"))
    size = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1}
    heads = {"num_attention_heads": 2}
    text = {
        **size, **heads, "vocab_size": len(words), "bos_token_id": 5, "eos_token_id": 3,
        "pad_token_id": 0, "sep_token_id": 3, "encoder_hidden_size": 16,
        "max_position_embeddings": 64, "projection_dim": 16,
    }  # fmt: skip
    vision = {**size, **heads, "image_size": 32, "patch_size": 16, "projection_dim": 16}
    torch.manual_seed(0)
    config = BlipConfig(text_config=text, vision_config=vision, projection_dim=16)
    BlipForConditionalGeneration(config).save_pretrained(folder)
    images = BlipImageProcessor(size={"height": 32, "width": 32})
    BlipProcessor(images, tokenizer).save_pretrained(folder)
    return folder


def options_for(folder: Path, **changes: object) -> DescriptionsConfig:
    values = {"model": str(folder), "prompt": "a scene", "max_new_tokens": 6, **changes}
    return DescriptionsConfig(source="captioner", **values)


def test_every_picture_of_a_modality_gets_a_caption(config: Config, blip: Path) -> None:
    workspace = Workspace.of(config)
    options = options_for(blip, modalities=("nir",))
    captioned = config.model_copy(update={"descriptions": options})
    first = describe(captioned, workspace, device="cpu", progress=False)
    assert (first.done, first.skipped) == (4, 0)
    second = describe(captioned, workspace, device="cpu", progress=False)
    assert (second.done, second.skipped) == (0, 4)
    store = resolve_descriptions(config, workspace, options, "nir")
    captioner = Captioner(blip, options, "cpu")
    for shard in Manifest.load(workspace.dataset(config)).all_shards:
        rows = store.read(shard, "embedding")
        assert np.isfinite(rows).all(axis=1).tolist() == list(shard.present["nir"])
    picture = np.zeros((20, 30), np.uint8)
    assert captioner([picture], KINDS["nir"]) == captioner([picture], KINDS["nir"])


def test_the_identity_covers_weights_prompt_and_length(blip: Path, tmp_path: Path) -> None:
    def identity(**changes: object) -> dict[str, object]:
        return captioner_identity(options_for(blip, **changes), blip, tmp_path)

    assert identity() == identity()
    assert identity() != identity(prompt="a car")
    assert identity() != identity(max_new_tokens=7)


@pytest.mark.parametrize("kind", ["rgb", "depth", "thermal", "gray16"])
def test_every_stored_form_is_shown_as_rgb(kind: str) -> None:
    spec = KINDS[kind]
    shape = (4, 5) if spec.channels == 1 else (4, 5, 3)
    picture = np.full(shape, min(spec.max_value, 255), dtype=spec.dtype)
    assert render(picture, spec).mode == "RGB"
    assert render(picture, spec).size == (5, 4)


def test_models_that_cannot_serve_are_refused(config: Config, blip: Path, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="expected safetensors weights"):
        captioner_identity(options_for(tmp_path), tmp_path, tmp_path)
    with pytest.raises(
        CheckpointError, match=r"hub repository .*set descriptions\.model to its local path"
    ):
        find_model(options_for(Path("not a name")))
    unknown = {"descriptions": options_for(blip, modalities=("lidar",))}
    with pytest.raises(ConfigError, match=r"descriptions\.modalities: expected some of rgb, nir"):
        describe(config.model_copy(update=unknown), Workspace.of(config))


def test_absent_pictures_have_empty_texts(config: Config, blip: Path) -> None:
    workspace = Workspace.of(config)
    shard = Manifest.load(workspace.dataset(config)).shards("train")[1]
    store = TextStore.create(workspace.root / "descriptions", "nir", {"a": 1})
    assert store.read(shard) is None
    store.write(shard, ["x", "", "y", "z"])
    assert store.read(shard) == ["x", "", "y", "z"]
