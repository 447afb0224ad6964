"""What fingerprints cover, and the digest cache."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.core.fingerprint import fingerprint
from pipeline.errors import CheckpointError
from teacher.checkpoints.locate import find_tower
from teacher.encoding.class_prompts import templates
from teacher.encoding.identity import prompt_identity, tower_identity, weights_digest
from teacher.families.language_bind import LanguageBindText
from teacher.preprocessing.config import preprocessing_for


def test_the_digest_is_computed_once_per_file_identity(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, cache = tmp_path / "weights", tmp_path / "cache"
    path.write_bytes(b"one")
    assert weights_digest((path,), cache) == hashlib.sha256(b"one").hexdigest()
    with monkeypatch.context() as patch:
        patch.setattr("teacher.encoding.identity.sha256_file", lambda _: pytest.fail("read again"))
        assert weights_digest((path,), cache) == hashlib.sha256(b"one").hexdigest()
    path.write_bytes(b"another")
    assert weights_digest((path,), cache) == hashlib.sha256(b"another").hexdigest()


def test_the_digest_of_shards_is_that_of_their_sha256sum(tmp_path: Path) -> None:
    shards = tuple(tmp_path / f"model-{number:05d}-of-00002.bin" for number in (1, 2))
    for shard in shards:
        shard.write_bytes(shard.name.encode())
    lines = subprocess.run(
        ["sha256sum", *(shard.name for shard in shards)],
        cwd=tmp_path,
        capture_output=True,
        check=True,
    ).stdout
    digest = weights_digest(shards, tmp_path / "cache")
    assert digest == hashlib.sha256(lines).hexdigest()
    assert digest == weights_digest(shards[::-1], tmp_path / "cache")
    shards[1].write_bytes(b"other")
    assert digest != weights_digest(shards, tmp_path / "cache")


def test_a_damaged_cache_costs_only_a_reading(tmp_path: Path) -> None:
    path = tmp_path / "weights"
    path.write_bytes(b"one")
    (tmp_path / "weights.json").write_text("{")
    assert weights_digest((path,), tmp_path) == hashlib.sha256(b"one").hexdigest()
    with pytest.raises(CheckpointError, match="expected a weights file"):
        weights_digest((tmp_path / "nothing",), tmp_path)


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


def test_the_tower_identity_covers_weights_and_preprocessing(goldens: Path, tmp_path: Path) -> None:
    files = find_tower(str(goldens), "depth")

    def identity(dtype: str = "float32", **options: object) -> dict[str, object]:
        settings = preprocessing_for(files.config, **options)
        return tower_identity(files, settings, compute_dtype=dtype, cache=tmp_path)

    base = identity()
    digest = hashlib.sha256(files.weights[0].read_bytes()).hexdigest()
    assert base["weights"] == digest
    assert base == identity(max_depth_m=10.0)
    others = [identity("bfloat16"), identity(antialias=True), identity(holes="far")]
    assert all(other != base for other in others)


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
