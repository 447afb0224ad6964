"""Token ids against upstream's tokenizer, and the cleaning of texts."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from ftfy import fix_text
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file

from pipeline.errors import CheckpointError
from teacher.checkpoints.locate import find_text_tower
from teacher.checkpoints.tokenizer import (
    BOS,
    EOS,
    ClipTokenizer,
    load_tokenizer,
)

SPECIAL = {BOS: 2, EOS: 3}


@pytest.fixture(scope="module")
def small(source: Path) -> ClipTokenizer:
    return load_tokenizer(find_text_tower(str(source)).tokenizer_files())


@pytest.mark.parametrize("names", [("tokenizer.json",), ("vocab.json", "merges.txt")])
def test_equals_the_goldens(shared: Path, names: tuple[str, ...]) -> None:
    folder = shared / "clip-tokenizer"
    if not folder.is_dir():
        pytest.skip("no clip-tokenizer in the shared folder")
    tokenizer = load_tokenizer([folder / name for name in names])
    texts = json.loads((shared / "languagebind" / "tokenizer" / "texts.json").read_text())["texts"]
    expected = load_file(shared / "languagebind" / "tokenizer" / "expected.safetensors")
    ids, mask = tokenizer(texts, 77)
    assert ids == expected["input_ids"].tolist()
    assert mask == expected["attention_mask"].tolist()


def test_text_is_framed_padded_and_truncated() -> None:
    tokenizer = ClipTokenizer({"a": 0, "a</w>": 1, **SPECIAL}, [], "here")
    ids, mask = tokenizer(["A a", "", "a " * 9], 5)
    assert ids == [[2, 1, 1, 3, 3], [2, 3, 3, 3, 3], [2, 1, 1, 1, 3]]
    assert mask == [[1, 1, 1, 1, 0], [1, 1, 0, 0, 0], [1, 1, 1, 1, 1]]


@settings(deadline=None)
@given(st.text(max_size=60))
def test_any_text_can_be_encoded(text: str) -> None:
    letters = {chr(code): code - 33 for code in range(33, 127)}
    tokenizer = ClipTokenizer({**letters, BOS: 94, EOS: 95}, [], "here")
    ids, mask = tokenizer([text], 12)
    assert len(ids[0]) == len(mask[0]) == 12
    assert (ids[0][0], ids[0][sum(mask[0]) - 1]) == (94, 95)


@pytest.mark.parametrize(
    ("text", "cleaned"),
    [
        ("\u201cx\u201d \u2018y\u2019", "\"x\" 'y'"),
        ("a &amp; b", "a & b"),
        ("<b> a &amp; b", "<b> a &amp; b"),
        ("\ufb01re \uff21", "fire A"),
        ("a\r\nb\rc", "a\nb\nc"),
        ("a\x00b\x1b[31mc", "abc"),
        ("e\u0301", "\u00e9"),
        ("caf\u00c3\u00a9", "caf\u00e9"),
    ],
)
def test_a_text_has_the_tokens_of_its_cleaned_form(
    small: ClipTokenizer, text: str, cleaned: str
) -> None:
    assert small([text], 20) == small([cleaned], 20)
    assert fix_text(text) == cleaned


def test_no_text_gives_no_rows(small: ClipTokenizer) -> None:
    assert small([], 20) == ([], [])


def test_files_that_cannot_serve_are_refused(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(CheckpointError, match=r"tokenizer\.json: expected tokenizer files"):
        load_tokenizer([tmp_path / "tokenizer.json"])
    with pytest.raises(CheckpointError, match=r"as its largest id .* found 0 and 1 of 3 ids"):
        ClipTokenizer({BOS: 0, EOS: 1, "a": 2}, [], "here")
