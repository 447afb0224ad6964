"""What names a store: exactly what decides its numbers."""

from __future__ import annotations

import pytest

from pipeline.targets.provenance import TargetProvenance, slug, store_schema

DIM, PATCHES = 6, 4


def provenance(**changes: object) -> TargetProvenance:
    fields = {
        "modality": "rgb",
        "teacher": "Some/Teacher One",
        "spec": {"kind": "rgb"},
        "tower": {"weights": "abc", "antialias": False},
        "outputs": {"embedding": (DIM,), "patch": (PATCHES, DIM)},
        "shard_size": 32,
    }
    return TargetProvenance.model_validate({**fields, **changes})


def test_the_fingerprint_covers_exactly_what_determines_the_numbers() -> None:
    base = provenance().tower_fingerprint
    for changed in (
        {"tower": {"weights": "abd", "antialias": False}},
        {"tower": {"weights": "abc", "antialias": True}},
        {"spec": {"kind": "gray"}},
        {"dtype": "float32"},
        {"outputs": {"embedding": (DIM,)}},
    ):
        assert provenance(**changed).tower_fingerprint != base
    for changed in ({"modality": "nir"}, {"teacher": "other"}, {"shard_size": 64}):
        assert provenance(**changed).tower_fingerprint == base


def test_the_fingerprint_of_a_known_store_is_unchanged() -> None:
    """Stores that lie on disks are found by it."""
    assert provenance().tower_fingerprint[:12] == "af07294a0770"
    assert provenance(outputs={"embedding": (DIM,)}).tower_fingerprint[:12] == "57b4874b846d"
    assert (store_schema(["embedding"]), store_schema(["embedding", "patch"])) == (1, 2)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("languagebind-tiny", "languagebind-tiny"),
        ("LanguageBind/LanguageBind_Depth", "languagebind_depth"),
        ("/data/My Towers/v1.5/", "v1-5"),
        ("...", "teacher"),
    ],
)
def test_slugs_are_plain(name: str, expected: str) -> None:
    assert slug(name) == expected
