"""A small byte-level BPE in CLIP's layout, readable by `CLIPTokenizer`.

The vocabulary is 256 byte symbols, the same 256 with the end-of-word mark, the learned merges and
the two special tokens, which come last (the text tower pools at the largest id). It contains every
byte, so any string can be encoded.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from pipeline.storage.files import write_json

CONTEXT_LENGTH = 77
END_OF_WORD = "</w>"
SPECIALS = ("<|startoftext|>", "<|endoftext|>")
FILES = ("tokenizer.json", "vocab.json", "merges.txt", "tokenizer_config.json")


def train_tokenizer(texts: Iterable[str], num_merges: int) -> Any:
    """Learn at most `num_merges` merges from the texts; returns a `CLIPTokenizer`."""
    from tokenizers.models import BPE
    from tokenizers.pre_tokenizers import ByteLevel
    from tokenizers.trainers import BpeTrainer

    learner = _clip_tokenizer(_byte_vocab(), []).backend_tokenizer
    learner.model = BPE(end_of_word_suffix=END_OF_WORD)
    trainer = BpeTrainer(
        vocab_size=512 + num_merges,
        min_frequency=2,
        initial_alphabet=sorted(ByteLevel.alphabet()),
        end_of_word_suffix=END_OF_WORD,
        show_progress=False,
    )
    learner.train_from_iterator(sorted(set(texts)), trainer)
    merges = _merges_of(learner)[:num_merges]
    vocab = _byte_vocab()
    for left, right in merges:
        vocab.setdefault(left + right, len(vocab))
    return _clip_tokenizer(vocab, merges)


def save_tokenizer(tokenizer: Any, directory: Path) -> None:
    """Write tokenizer.json, vocab.json, merges.txt and tokenizer_config.json."""
    import json

    backend = tokenizer.backend_tokenizer
    backend.no_padding()
    backend.no_truncation()
    backend.save(str(directory / "tokenizer.json"))
    state = json.loads((directory / "tokenizer.json").read_text(encoding="utf-8"))["model"]
    write_json(directory / "vocab.json", state["vocab"])
    lines = ["#version: 0.2", *(" ".join(pair) for pair in _pairs(state["merges"]))]
    (directory / "merges.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    write_json(
        directory / "tokenizer_config.json",
        {
            "tokenizer_class": "CLIPTokenizer",
            "model_max_length": CONTEXT_LENGTH,
            "bos_token": SPECIALS[0],
            "eos_token": SPECIALS[1],
            "pad_token": SPECIALS[1],
            "unk_token": SPECIALS[1],
        },
    )


def _clip_tokenizer(vocab: dict[str, int], merges: list[Any]) -> Any:
    from transformers import CLIPTokenizer

    full = dict(vocab)
    for special in SPECIALS:
        full[special] = len(full)
    return CLIPTokenizer(vocab=full, merges=merges, model_max_length=CONTEXT_LENGTH)


def _byte_vocab() -> dict[str, int]:
    from tokenizers.pre_tokenizers import ByteLevel

    symbols = sorted(ByteLevel.alphabet())
    words = [*symbols, *(symbol + END_OF_WORD for symbol in symbols)]
    return {word: index for index, word in enumerate(words)}


def _merges_of(learner: Any) -> list[tuple[str, str]]:
    import json

    return _pairs(json.loads(learner.to_str())["model"]["merges"])


def _pairs(merges: list[Any]) -> list[tuple[str, str]]:
    split = [
        tuple(entry.split(" ")) if isinstance(entry, str) else tuple(entry) for entry in merges
    ]
    return [(pair[0], pair[1]) for pair in split]
