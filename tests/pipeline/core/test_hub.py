"""Files from the hub: the first that is there, the cache alone, one form of error."""

from __future__ import annotations

from pathlib import Path

import pytest
from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

from pipeline.core.hub import fetch_first, fetch_optional, fetch_snapshot
from pipeline.errors import CheckpointError

DOWNLOAD = "huggingface_hub.hf_hub_download"
SNAPSHOT = "huggingface_hub.snapshot_download"
COMMIT = "1" * 40


def hub(files: dict[str, Exception | str]):
    """A hub whose repository answers for each file with a path or an error."""

    def download(repository: str, file: str, **options: object) -> str:
        assert repository == "org/repo"
        answer = files[file]
        if isinstance(answer, Exception):
            raise answer
        return f"{answer}?{options['revision']},{options['local_files_only']}"

    return download


def test_fetch_first_returns_the_first_existing_file(monkeypatch: pytest.MonkeyPatch) -> None:
    missing = LocalEntryNotFoundError("not cached")
    monkeypatch.setattr(DOWNLOAD, hub({"a": EntryNotFoundError("404"), "b": missing, "c": "/c"}))
    path = fetch_first("org/repo", ("a", "b", "c"), "x.y", revision="v1", local_only=True)
    assert path == Path("/c?v1,True")
    assert fetch_optional("org/repo", "c") == Path("/c?None,False")
    assert fetch_optional("org/repo", "a") is None
    assert fetch_optional("org/repo", "b") is None


def test_an_error_names_repository_files_reasons_and_setting(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    files: dict[str, Exception | str] = {
        "a": EntryNotFoundError("404"),
        "b": OSError("no route to host\nand more"),
    }
    monkeypatch.setattr(DOWNLOAD, hub(files))
    with pytest.raises(CheckpointError) as caught:
        fetch_first("org/repo", ("a", "b"), "x.y", revision="v1")
    assert str(caught.value) == (
        "hub repository org/repo (revision v1): expected a or b; found: a: not there; b: no route "
        "to host. Check the name and the network, or download it once and set x.y to its local path."
    )


def test_fetch_snapshot_returns_a_folder_or_raises_the_same_error(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked = {}

    def snapshot(repository: str, **options: object) -> str:
        asked.update(options)
        if repository == "org/none":
            raise ValueError
        return "/folder"

    monkeypatch.setattr(SNAPSHOT, snapshot)
    assert fetch_snapshot("org/repo", ("*.json",), "x.y", token="t") == Path("/folder")
    assert asked == {"revision": None, "allow_patterns": ["*.json"], "token": "t"}
    with pytest.raises(CheckpointError, match=r"org/none \(revision main\).*: ValueError\. Check"):
        fetch_snapshot("org/none", ("*.json",), "x.y")


def test_offline_reads_only_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    snapshot = tmp_path / "models--org--repo/snapshots" / COMMIT
    snapshot.mkdir(parents=True)
    (snapshot / "a.json").write_text("{}")
    (tmp_path / "models--org--repo/refs").mkdir()
    (tmp_path / "models--org--repo/refs/main").write_text(COMMIT)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    folder = fetch_snapshot("org/repo", ("*.json",), "x.y", cache_dir=tmp_path)
    assert folder == snapshot
    with pytest.raises(CheckpointError, match="hub repository org/other"):
        fetch_snapshot("org/other", ("*.json",), "x.y", cache_dir=tmp_path)
