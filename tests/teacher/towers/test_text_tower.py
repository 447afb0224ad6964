"""The text tower against the golden tensors."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

import teacher
from pipeline.errors import CheckpointError


def test_equals_the_goldens(goldens: Path) -> None:
    io = load_file(goldens / "language.safetensors")
    text = teacher.load_text_tower(str(goldens))
    output = text.encode_ids(io["input_ids"], io["attention_mask"])
    torch.testing.assert_close(output.embedding, io["normalized"], atol=1e-5, rtol=0)
    torch.testing.assert_close(output.pooled, io["pooler_output"], atol=5e-5, rtol=0)
    torch.testing.assert_close(output.projected, io["projected"], atol=5e-5, rtol=0)


def test_text_embeddings_equal_the_full_golden_set(shared: Path) -> None:
    io = load_file(shared / "languagebind" / "language" / "io.safetensors")
    text = teacher.load_text_tower(str(shared / "languagebind" / "image"))
    masked = text.encode_ids(io["input_ids"], io["attention_mask"])
    bare = text.encode_ids(io["input_ids"])
    hidden = {"atol": 2e-4, "rtol": 0}
    torch.testing.assert_close(masked.last_hidden_state, io["last_hidden_state"], **hidden)
    torch.testing.assert_close(
        bare.last_hidden_state, io["last_hidden_state_no_attention_mask"], **hidden
    )
    pooled = {"atol": 5e-5, "rtol": 0}
    for ids, name in (
        ("input_ids_pad0", "pooler_output_pad0"),
        ("input_ids_unpadded", "pooler_output_unpadded"),
    ):
        torch.testing.assert_close(text.encode_ids(io[ids]).pooled, io[name], **pooled)


def test_padding_and_mask_do_not_change_the_embedding(goldens: Path) -> None:
    io = load_file(goldens / "language.safetensors")
    text = teacher.load_text_tower(str(goldens))
    masked = text.encode_ids(io["input_ids"], io["attention_mask"]).embedding
    assert torch.equal(masked, text.encode_ids(io["input_ids"]).embedding)
    length = int(io["attention_mask"][0].sum())
    short = text.encode_ids(io["input_ids"][:1, :length]).embedding
    torch.testing.assert_close(short, masked[:1], atol=1e-6, rtol=0)


def test_encoding_texts_without_tokenizer_files_says_what_to_copy(goldens: Path) -> None:
    text = teacher.load_text_tower(str(goldens))
    with pytest.raises(CheckpointError, match=r"expected tokenizer\.json, or vocab\.json"):
        text.encode(["a photo of a car."])


def test_a_checkpoint_without_text_half_is_named(depth_dir: Path) -> None:
    state = load_file(depth_dir / "model.safetensors")
    vision = {name: tensor for name, tensor in state.items() if not name.startswith("text_")}
    save_file(vision, depth_dir / "vision.safetensors")
    (depth_dir / "vision.safetensors").replace(depth_dir / "model.safetensors")
    with pytest.raises(CheckpointError, match="without a text tower"):
        teacher.load_text_tower(str(depth_dir))


def test_a_tokenizer_of_another_vocabulary_is_refused(depth_dir: Path) -> None:
    from teacher.checkpoints.tokenizer import BOS, EOS, clip_backend

    backend = clip_backend({"a": 0, "a</w>": 1, BOS: 2, EOS: 3}, []).backend_tokenizer
    backend.save(str(depth_dir / "tokenizer.json"))
    with pytest.raises(CheckpointError, match=r"expected 400 tokens .* found 4"):
        teacher.load_text_tower(str(depth_dir)).encode(["a"])
