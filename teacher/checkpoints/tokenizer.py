"""CLIP's tokenizer from a checkpoint's files: ftfy's cleaning, byte-level BPE, truncation, padding.

Upstream runs transformers' slow tokenizer, which passes every text through `ftfy.fix_text`.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.errors import CheckpointError
from teacher.checkpoints.json_file import AGAIN, read_json_object

if TYPE_CHECKING:
    from transformers import CLIPTokenizer

BOS, EOS = "<|startoftext|>", "<|endoftext|>"
Merges = list[tuple[str, str]]


class ClipTokenizer:
    """Texts to padded token ids of one fixed length."""

    def __init__(self, vocab: dict[str, int], merges: Merges, where: str) -> None:
        ids = list(vocab.values())
        if not all(isinstance(id_, int) for id_ in ids) or sorted(ids) != list(range(len(ids))):
            raise CheckpointError(
                f"{where}: expected each id from 0 to {len(ids) - 1} once in the vocabulary, found "
                "others. Fetch the checkpoint again."
            )
        bos, eos = vocab.get(BOS), vocab.get(EOS)
        if bos is None or eos is None or eos != len(vocab) - 1:
            raise CheckpointError(
                f"{where}: expected {BOS} in the vocabulary and {EOS} as its largest id (the text "
                f"tower pools there), found {bos} and {eos} of {len(vocab)} ids."
            )
        self.vocab_size = len(vocab)
        self._backend = clip_backend(vocab, merges)

    def __call__(
        self, texts: Sequence[str], length: int
    ) -> tuple[list[list[int]], list[list[int]]]:
        """(input ids, attention mask) of each text: begin, words, end, then end as padding.

        Long texts are cut so that the end token stays last.
        """
        from ftfy import fix_text

        if not texts:
            return [], []
        cleaned = [fix_text(text) for text in texts]
        rows = self._backend(cleaned, padding="max_length", truncation=True, max_length=length)
        return rows["input_ids"], rows["attention_mask"]


def clip_backend(vocab: dict[str, int], merges: Merges) -> CLIPTokenizer:
    """transformers' CLIP tokenizer over a vocabulary that holds `BOS` and `EOS`."""
    from transformers import CLIPTokenizer

    # Annotated as strings there, but pairs are what its model takes.
    return CLIPTokenizer(vocab=vocab, merges=merges)  # type: ignore[arg-type]


def load_tokenizer(files: Sequence[Path]) -> ClipTokenizer:
    """From (tokenizer.json,) or (vocab.json, merges.txt).

    No other file is read: a prompt's identity covers these alone. Raises `CheckpointError`.
    """
    where = ", ".join(str(file) for file in files)
    try:
        vocab, merges = _from_json(*files) if len(files) == 1 else _from_vocabulary(*files)
        return ClipTokenizer(vocab, merges, where)
    except CheckpointError:
        raise
    except Exception as error:  # the Rust tokenizer raises bare Exception for unusable merges
        raise CheckpointError(
            f"{where}: expected tokenizer files, found unusable ones: {error!r}. "
            "Fetch the checkpoint again."
        ) from error


def _from_json(file: Path) -> tuple[dict[str, int], Merges]:
    model = _require(file, "model", read_json_object(file).get("model"), dict)
    merges = _require(file, "model.merges", model.get("merges"), list)
    # Older files join a pair by a space, newer ones list the two.
    pairs = (pair.split(" ") if isinstance(pair, str) else pair for pair in merges)
    vocab = _require(file, "model.vocab", model.get("vocab"), dict)
    return vocab, [(left, right) for left, right in pairs]


def _from_vocabulary(vocab_file: Path, merges_file: Path) -> tuple[dict[str, int], Merges]:
    vocab = read_json_object(vocab_file)
    lines = merges_file.read_text(encoding="utf-8").split("\n")
    pairs = [line.split() for line in lines if line.strip() and not line.startswith("#version")]
    if any(len(pair) != 2 for pair in pairs):
        odd = next(" ".join(pair) for pair in pairs if len(pair) != 2)
        raise CheckpointError(
            f"{merges_file}: expected lines of two symbols, found {odd[:40]!r}. {AGAIN}"
        )
    return vocab, [(left, right) for left, right in pairs]


def _require(file: Path, field: str, value: object, kind: type) -> Any:
    if isinstance(value, kind):
        return value
    raise CheckpointError(
        f"{file}: expected tokenizer files with a {kind.__name__} under {field}, found a "
        f"{type(value).__name__}. {AGAIN}"
    )
