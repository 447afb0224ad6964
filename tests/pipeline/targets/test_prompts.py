"""The prompt store: complete or absent, checked on reading, found from a config."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from pipeline.config.config import Config
from pipeline.errors import CorruptTarget, MissingTarget
from pipeline.targets.prompts import (
    PromptStore,
    point_to_prompts,
    prompt_request,
    resolve_prompts,
)
from pipeline.workspace import Workspace

IDENTITY = {"text": "abc", "classes": ["soil", "crop", "weed"], "templates": ["a {}."]}


def embeddings() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(2)
    return rng.random((3, 8), dtype=np.float32), rng.random((3, 5, 8), dtype=np.float32)


def make(root: Path) -> PromptStore:
    return PromptStore.create(root, "Some/Teacher", IDENTITY, *embeddings())


def test_round_trip(tmp_path: Path) -> None:
    store = make(tmp_path)
    assert store.path.name == f"teacher-{store.fingerprint[:12]}"
    for found, wanted in zip(
        (store.class_embedding(), store.prompt_embedding()), embeddings(), strict=True
    ):
        assert found.dtype == np.float32
        np.testing.assert_array_equal(found, wanted)
    again = PromptStore.find(tmp_path, "Some/Teacher", IDENTITY)
    assert again is not None
    assert again.path == store.path
    assert PromptStore.find(tmp_path, "Some/Teacher", {**IDENTITY, "text": "abd"}) is None


def test_a_complete_store_is_left_alone(tmp_path: Path, tree: Callable) -> None:
    before = tree(make(tmp_path).path)
    other = [array + 1 for array in embeddings()]
    store = PromptStore.create(tmp_path, "Some/Teacher", IDENTITY, *other)
    assert tree(store.path) == before


@pytest.mark.slow
def test_a_kill_at_every_step_leaves_no_store_or_a_complete_one(
    tmp_path: Path, kill_at_step: Callable, tree: Callable
) -> None:
    wanted = tree(make(tmp_path / "whole").path)
    step = 0
    while kill_at_step(lambda: make(tmp_path / f"killed{step}"), step):  # noqa: B023
        found = PromptStore.find(tmp_path / f"killed{step}", "Some/Teacher", IDENTITY)
        if found is not None:
            np.testing.assert_array_equal(found.prompt_embedding(), embeddings()[1])
        assert tree(make(tmp_path / f"killed{step}").path) == wanted
        step += 1
    assert step > 10


def test_a_flipped_byte_or_a_missing_object_raises_corrupt_target(tmp_path: Path) -> None:
    store = make(tmp_path)
    path = store.path / "prompts.zarr/class_embedding/c/0/0"
    data = bytearray(path.read_bytes())
    data[5] ^= 1
    path.write_bytes(data)
    with pytest.raises(CorruptTarget, match=r"expected sha256 .* any2seg precompute|Delete"):
        store.class_embedding()
    path.unlink()
    with pytest.raises(CorruptTarget, match="found no file"):
        store.class_embedding()


def test_damaged_provenance_is_named(tmp_path: Path) -> None:
    store = make(tmp_path)
    (store.path / "provenance.json").write_text("{")
    with pytest.raises(CorruptTarget, match=r"provenance.json: cannot be read.*precompute"):
        PromptStore.open(store.path)


def test_numbers_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    classes, prompts = embeddings()
    prompts[0, 0, 0] = np.nan
    with pytest.raises(CorruptTarget, match="prompt_embedding: expected finite"):
        PromptStore.create(tmp_path, "t", IDENTITY, classes, prompts)


def test_a_config_finds_its_prompts(make_config: Callable[..., Config]) -> None:
    config = make_config()
    workspace = Workspace.of(config)
    with pytest.raises(MissingTarget, match="nothing was computed for prompts"):
        resolve_prompts(config, workspace)
    store = make(workspace.prompts)
    point_to_prompts(config, workspace, store)
    assert resolve_prompts(config, workspace).path == store.path
    for override in ("teacher.templates=driving", "dataset.classes=['a','b','c']"):
        with pytest.raises(MissingTarget):
            resolve_prompts(make_config(override), workspace)
    assert prompt_request(config, ("a",)) == prompt_request(
        make_config("teacher.antialias=true", "modalities.rgb.tower=thermal"), ("a",)
    )
