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


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_numbers_that_are_not_finite_are_refused(
    tmp_path: Path, dtype: torch.dtype, value: float
) -> None:
    state = {"good": torch.ones(3, dtype=dtype), "bad": torch.ones(3, 2, dtype=dtype)}
    state["bad"][2, 0] = value
    save_file(state, tmp_path / "x.safetensors")
    with pytest.raises(CheckpointError, match="found NaN or infinity in bad"):
        read_tensors(tmp_path / "x.safetensors")


def test_integers_empty_tensors_and_the_largest_floats_are_read(tmp_path: Path) -> None:
    state = {
        "ids": torch.arange(3),
        "none": torch.ones(0, 4),
        "large": torch.full((2,), torch.finfo(torch.float32).max),
    }
    save_file(state, tmp_path / "x.safetensors")
    assert read_tensors(tmp_path / "x.safetensors").keys() == state.keys()


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ([1, 2], "found a list"),
        ({}, "found no tensor"),
        ({"model": {"a": torch.ones(1)}, "epoch": 1}, "found a dict under 'model'"),
        ({"a": torch.ones(1), "epoch": 1}, "found a int under 'epoch'"),
        ({3: torch.ones(1)}, "found a Tensor under 3"),
        ({"a": torch.ones(2, 2).to_sparse()}, "a sparse, quantised or empty tensor: a"),
    ],
)
def test_other_contents_are_named(tmp_path: Path, content: object, words: str) -> None:
    torch.save(content, tmp_path / "x.bin")
    with pytest.raises(CheckpointError, match=words):
        read_tensors(tmp_path / "x.bin")


def test_every_cut_of_a_file_is_refused(tmp_path: Path) -> None:
    state = {"a": torch.arange(6.0).view(2, 3)}
    save_file(state, tmp_path / "whole.safetensors")
    torch.save(state, tmp_path / "whole.bin")
    torch.save(state, tmp_path / "old.bin", _use_new_zipfile_serialization=False)
    for name in ("whole.safetensors", "whole.bin", "old.bin"):
        data = (tmp_path / name).read_bytes()
        assert read_tensors(tmp_path / name).keys() == state.keys()
        path = tmp_path / f"cut-{name}"
        for length in range(0, len(data), 7):
            path.write_bytes(data[:length])
            with pytest.raises(CheckpointError, match=path.name):
                read_tensors(path)
