"""What the fingerprints of prompts cover; fingerprints that must not change."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from pipeline.core.fingerprint import fingerprint
from teacher.checkpoints.locate import find_tower
from teacher.encoding.class_prompts import templates
from teacher.encoding.identity import prompt_identity
from teacher.families.language_bind import LanguageBindText
from teacher.families.language_bind_identity import tower_identity
from teacher.preprocessing.config import preprocessing_for


def test_the_identities_of_the_packaged_teacher_are_stable(tmp_path: Path) -> None:
    """Cached targets and prompts of earlier versions are found by these; a change needs a reason."""
    identity = prompt_identity(
        LanguageBindText("languagebind-tiny"),
        ["car"],
        templates("photo"),
        compute_dtype="float32",
        cache=tmp_path,
    )
    assert fingerprint(identity).startswith("582d47d3c308b00f")
    for tower, digest in (("image", "e4a1f1b5faaad212"), ("depth", "86ff715bd575b9ad")):
        files = find_tower("languagebind-tiny", tower)
        options = preprocessing_for(files.config)
        identity = tower_identity(files, options, compute_dtype="float32", cache=tmp_path)
        assert fingerprint(identity).startswith(digest)


def test_the_prompt_identity_covers_words_and_tokenizer(source: Path, tmp_path: Path) -> None:
    text = LanguageBindText(str(source))

    def identity(classes: list[str], templates: list[str]) -> dict[str, object]:
        return prompt_identity(text, classes, templates, compute_dtype="float32", cache=tmp_path)

    base = identity(["car"], ["a {}."])
    assert base == identity(["car"], ["a {}."])
    assert base != identity(["bus"], ["a {}."])
    assert base != identity(["car"], ["the {}."])
    assert base["tokenizer"]


def test_planning_needs_neither_torch_nor_transformers() -> None:
    code = (
        "import sys, teacher, teacher.encoding.units, teacher.encoding.precompute\n"
        "found = {'torch', 'transformers', 'tokenizers'} & set(sys.modules)\n"
        "assert not found, found"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[3])
