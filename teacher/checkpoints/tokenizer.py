"""CLIP's tokenizer from a checkpoint's files: upstream's cleaning, encoding and padding.

Upstream's slow tokenizer passes text through ftfy. The repairs of ftfy that are plain rules are
done here (HTML entities, curly quotes, ligatures, character width, line breaks, control characters,
NFC); guessing at wrongly decoded text is not.

Writes nothing. Fails with `CheckpointError` for files that cannot be read or do not fit each other.
"""

from __future__ import annotations

import html
import re
import unicodedata
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.errors import CheckpointError

if TYPE_CHECKING:
    from tokenizers import Tokenizer

BOS, EOS = "<|startoftext|>", "<|endoftext|>"
_WORDS = r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"
_CHARACTERS = {
    **dict.fromkeys([0x02BC, *range(0x2018, 0x201C)], "'"),
    **dict.fromkeys(range(0x201C, 0x2020), '"'),
    **dict.fromkeys([0x2028, 0x2029, 0x85], "\n"),
    **{code: unicodedata.normalize("NFKC", chr(code)) for code in range(0xFB00, 0xFB07)},
    **{code: unicodedata.normalize("NFKC", chr(code)) for code in range(0xFF01, 0xFFF0)},
    0x3000: " ",
    **dict.fromkeys([*range(0x09), 0x0B, *range(0x0E, 0x20), 0x7F, 0xFEFF]),
}
_TERMINAL_ESCAPE = re.compile(r"\x1b\[[\d;]*[A-Za-z]")


class ClipTokenizer:
    """Texts to padded token ids of one fixed length."""

    def __init__(self, backend: Tokenizer, where: str) -> None:
        bos, eos = backend.token_to_id(BOS), backend.token_to_id(EOS)
        if bos is None or eos is None or eos != backend.get_vocab_size() - 1:
            raise CheckpointError(
                f"{where}: expected {BOS} in the vocabulary and {EOS} as its largest id (the text "
                f"tower pools there), found {bos} and {eos} of {backend.get_vocab_size()} ids."
            )
        self._backend = backend
        self.bos_id, self.eos_id = int(bos), int(eos)

    @property
    def vocab_size(self) -> int:
        """Number of token ids."""
        return self.eos_id + 1

    def __call__(
        self, texts: Sequence[str], length: int
    ) -> tuple[list[list[int]], list[list[int]]]:
        """(input ids, attention mask) of each text: begin, words, end, then end as padding.

        Long texts are cut so that the end token stays last.
        """
        cleaned = [clean_text(text) for text in texts]
        encoded = self._backend.encode_batch(cleaned, add_special_tokens=False)
        rows, masks = [], []
        for words in encoded:
            ids = [self.bos_id, *words.ids[: length - 2], self.eos_id]
            padding = length - len(ids)
            rows.append(ids + [self.eos_id] * padding)
            masks.append([1] * len(ids) + [0] * padding)
        return rows, masks


def load_tokenizer(files: Sequence[Path]) -> ClipTokenizer:
    """From (tokenizer.json,) or (vocab.json, merges.txt)."""
    from tokenizers import Tokenizer

    where = ", ".join(str(file) for file in files)
    try:
        backend = (
            Tokenizer.from_file(str(files[0])) if len(files) == 1 else _from_vocabulary(*files)
        )
    except Exception as error:  # tokenizers raises bare Exception for unreadable files
        raise CheckpointError(
            f"{where}: expected tokenizer files, found: {error}. Fetch the checkpoint again."
        ) from error
    return ClipTokenizer(backend, where)


def clip_backend(vocab: dict[str, int], merges: list[tuple[str, str]]) -> Tokenizer:
    """CLIP's byte-level BPE over lower-cased text, from its vocabulary and merges."""
    from tokenizers import AddedToken, Regex, Tokenizer
    from tokenizers.models import BPE
    from tokenizers.normalizers import NFC, Lowercase, Replace
    from tokenizers.normalizers import Sequence as Normalizers
    from tokenizers.pre_tokenizers import ByteLevel, Split
    from tokenizers.pre_tokenizers import Sequence as PreTokenizers

    model = BPE(vocab=vocab, merges=merges, unk_token=EOS, end_of_word_suffix="</w>")
    backend = Tokenizer(model)
    backend.normalizer = Normalizers([NFC(), Replace(Regex(r"\s+"), " "), Lowercase()])
    split = Split(Regex(_WORDS), "removed", invert=True)
    backend.pre_tokenizer = PreTokenizers([split, ByteLevel(add_prefix_space=False)])
    backend.add_special_tokens([AddedToken(BOS, special=True), AddedToken(EOS, special=True)])
    return backend


def _from_vocabulary(vocab_file: Path, merges_file: Path) -> Tokenizer:
    import json

    vocab = json.loads(vocab_file.read_text(encoding="utf-8"))
    lines = merges_file.read_text(encoding="utf-8").split("\n")
    pairs = (tuple(line.split()) for line in lines if not line.startswith("#version"))
    return clip_backend(vocab, [(pair[0], pair[1]) for pair in pairs if len(pair) == 2])


def clean_text(text: str) -> str:
    """The rule-based part of ftfy's `fix_text`; entities only where the text has no `<`."""
    if "<" not in text:
        text = html.unescape(text)
    text = _TERMINAL_ESCAPE.sub("", text).replace("\r\n", "\n").replace("\r", "\n")
    return unicodedata.normalize("NFC", text.translate(_CHARACTERS))
