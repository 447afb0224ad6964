"""Folders of the hub's cache, at every level that a user may point to."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.errors import CheckpointError
from teacher.checkpoints.hub_cache import resolve_snapshot

FIRST, SECOND, THIRD = "1" * 40, "2" * 40, "3" * 40
MODEL = "models--ORG--NAME"


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """The folder of one model with two snapshots; `v1` is the first, refs/pr/7 the second."""
    folder = tmp_path / "hub" / MODEL
    for commit in (FIRST, SECOND):
        (folder / "snapshots" / commit).mkdir(parents=True)
    (folder / "refs" / "pr").mkdir(parents=True)
    (folder / "refs" / "v1").write_text(f"{FIRST}\n")
    (folder / "refs" / "pr" / "7").write_text(SECOND)
    (folder / "blobs").mkdir()
    return folder


def test_a_folder_outside_of_a_cache_is_its_own(tmp_path: Path) -> None:
    assert resolve_snapshot(tmp_path) == (tmp_path, None)
    assert resolve_snapshot(tmp_path, "v1") == (tmp_path, None)
    (tmp_path / "snapshots" / FIRST).mkdir(parents=True)
    assert resolve_snapshot(tmp_path / "snapshots") == (tmp_path / "snapshots", None)


@pytest.mark.parametrize("level", [".", "snapshots"])
@pytest.mark.parametrize(
    ("revision", "commit"),
    [("v1", FIRST), ("refs/../v1", None), ("pr/7", SECOND), (SECOND, SECOND)],
)
def test_a_revision_chooses_the_snapshot(
    model: Path, level: str, revision: str, commit: str | None
) -> None:
    if commit is None:
        with pytest.raises(CheckpointError, match=f"expected revision {revision}, found {FIRST}"):
            resolve_snapshot(model / level, revision)
    else:
        place = model / "snapshots" / commit
        assert resolve_snapshot(model / level, revision) == (place, commit)


@pytest.mark.parametrize("level", [".", "snapshots"])
def test_main_chooses_among_several_else_the_user(model: Path, level: str) -> None:
    with pytest.raises(CheckpointError, match=f"Give one of them: .*{FIRST}, .*{SECOND}"):
        resolve_snapshot(model / level)
    (model / "refs" / "main").write_text(SECOND)
    assert resolve_snapshot(model / level) == (model / "snapshots" / SECOND, SECOND)


@pytest.mark.parametrize("level", [".", "snapshots", f"snapshots/{SECOND}"])
def test_the_only_snapshot_needs_no_main(
    model: Path, level: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    (model / "snapshots" / FIRST).rmdir()
    (model / "refs" / "main").write_text(THIRD)
    assert resolve_snapshot(model / level) == (model / "snapshots" / SECOND, SECOND)
    monkeypatch.chdir(model / level)
    assert resolve_snapshot(Path())[1] == SECOND


def test_a_download_that_did_not_finish_is_named(tmp_path: Path) -> None:
    (tmp_path / MODEL / "refs").mkdir(parents=True)
    with pytest.raises(CheckpointError, match="its download did not finish"):
        resolve_snapshot(tmp_path / MODEL)


@pytest.mark.parametrize("level", ["blobs", "refs"])
def test_a_level_beside_the_snapshots_names_the_models(model: Path, level: str) -> None:
    with pytest.raises(CheckpointError, match=rf"found the {level} of .* Give {model}\."):
        resolve_snapshot(model / level)


@pytest.mark.parametrize("level", [".", ".."])
def test_a_level_above_names_the_models_below(model: Path, level: str) -> None:
    with pytest.raises(
        CheckpointError, match=rf"the hub's cache of 1\. Give one of them: .*{MODEL}"
    ):
        resolve_snapshot(model.parent / level)
