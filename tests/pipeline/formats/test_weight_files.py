"""Weight files: tensors only, no code execution, errors that name the file."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from pipeline.errors import CheckpointError
from pipeline.formats.weight_files import read_tensors


class Exploit:
    """What a hostile pickle would carry."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (Path.touch, (Path("exploited"),))  # type: ignore[return-value]


def test_both_formats_give_the_same_tensors(tmp_path: Path) -> None:
    state = {"a": torch.arange(6.0).view(2, 3), "b": torch.ones(1, dtype=torch.float16)}
    save_file(state, tmp_path / "x.safetensors")
    torch.save(state, tmp_path / "x.bin")
    for name in ("x.safetensors", "x.bin"):
        read = read_tensors(tmp_path / name)
        assert read.keys() == state.keys()
        assert all(torch.equal(read[key], state[key]) for key in state)
        assert read["b"].dtype == torch.float16


def test_a_pickle_with_code_is_refused_and_not_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"weight": Exploit()}, tmp_path / "pytorch_model.bin")
    (tmp_path / "legacy.bin").write_bytes(pickle.dumps(Exploit(), protocol=2))
    for name in ("pytorch_model.bin", "legacy.bin"):
        with pytest.raises(CheckpointError, match="expected a checkpoint of tensors only"):
            read_tensors(tmp_path / name)
    assert not (tmp_path / "exploited").exists()


@pytest.mark.parametrize("name", ["model.safetensors", "pytorch_model.bin"])
def test_corrupted_files_are_refused_by_name(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_bytes(b"\x10\x00\x00\x00\x00\x00\x00\x00not json at all!")
    with pytest.raises(CheckpointError, match=name):
        read_tensors(path)
    torch.save([1, 2], tmp_path / "list.bin")
    with pytest.raises(CheckpointError, match="flat dict of tensors"):
        read_tensors(tmp_path / "list.bin")


def test_the_remedy_ends_the_message(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"no such file\. Check student\.weights\.$"):
        read_tensors(tmp_path / "none.bin", remedy="Check student.weights.")
