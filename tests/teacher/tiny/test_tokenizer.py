"""The small BPE: any string survives, the files are CLIP's, and both ways to read them agree."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers import CLIPTokenizer

from teacher.tiny.tokenizer import FILES, save_tokenizer, train_tokenizer

TEXTS = ["a photo of a car.", "a photo of a bus.", "a street scene in fog with a car and a bus."]


@pytest.fixture(scope="module")
def tokenizer():
    return train_tokenizer(TEXTS * 3, 60)


def test_vocabulary_is_bytes_then_merges_then_specials(tokenizer):
    vocab = tokenizer.get_vocab()
    assert sorted(vocab.values()) == list(range(len(vocab)))
    assert 512 < len(vocab) - 2 <= 512 + 60
    assert vocab["<|startoftext|>"] == len(vocab) - 2
    assert vocab["<|endoftext|>"] == len(vocab) - 1 == tokenizer.eos_token_id


@given(text=st.text(st.characters(codec="utf-8", categories=["L", "N", "P", "S"]), max_size=30))
def test_any_string_is_encoded_without_unknowns(tokenizer, text):
    ids = tokenizer(text)["input_ids"]
    assert ids[0] == tokenizer.bos_token_id
    assert ids.index(tokenizer.eos_token_id) == len(ids) - 1


def test_lower_case_text_survives_the_round_trip(tokenizer):
    ids = tokenizer("A Photo of a naïve zebra")["input_ids"]
    assert tokenizer.decode(ids, skip_special_tokens=True) == "a photo of a naïve zebra"


def test_files_read_alike_with_and_without_tokenizer_json(tokenizer, tmp_path):
    save_tokenizer(tokenizer, tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == set(FILES)
    wanted = tokenizer(TEXTS)["input_ids"]
    assert CLIPTokenizer.from_pretrained(tmp_path)(TEXTS)["input_ids"] == wanted
    (tmp_path / "tokenizer.json").unlink()
    assert CLIPTokenizer.from_pretrained(tmp_path)(TEXTS)["input_ids"] == wanted
