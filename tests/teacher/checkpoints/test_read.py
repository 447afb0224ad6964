"""Every form of weights on disk gives the same tensors; contradictions name the file."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor
from transformers import CLIPVisionConfig, CLIPVisionModel

from pipeline.errors import CheckpointError
from teacher.checkpoints.read import read_checkpoint
from teacher.checkpoints.weight_index import WEIGHTS, weight_files, weights_entry

STATE = {f"layer.{index}": torch.full((2, 3), float(index)) for index in range(5)}
STATE["ids"] = torch.arange(3)


def write(folder: Path, form: str, state: dict[str, Tensor] | None = None) -> None:
    """`state` in one of the four forms; shards hold every other name."""
    state = state or STATE
    base = form.removesuffix(".index.json")
    save = save_file if base.endswith(".safetensors") else torch.save
    if base == form:
        save(state, folder / form)
        return
    stem, suffix = base.rsplit(".", 1)
    weight_map = {}
    for number in (1, 2):
        shard = f"{stem}-{number:05d}-of-00002.{suffix}"
        part = {name: state[name] for name in sorted(state)[number - 1 :: 2]}
        save(part, folder / shard)
        weight_map |= dict.fromkeys(part, shard)
    (folder / form).write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))


@pytest.mark.parametrize("form", WEIGHTS)
def test_every_form_gives_the_same_tensors(tmp_path: Path, form: str) -> None:
    write(tmp_path, form)
    state, files = read_checkpoint(tmp_path)
    assert state.keys() == STATE.keys()
    assert all(torch.equal(state[name], STATE[name]) for name in STATE)
    assert files == weight_files(tmp_path)
    assert [path.name for path in files] == sorted(path.name for path in files)
    assert len(files) == (2 if "index" in form else 1)


def test_forms_are_preferred_in_their_order(tmp_path: Path) -> None:
    for form in reversed(WEIGHTS):
        write(tmp_path, form)
        assert weights_entry(tmp_path).name == form


def test_what_transformers_saves_in_shards_is_read(tmp_path: Path) -> None:
    config = CLIPVisionConfig(
        hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2,
        image_size=32, patch_size=16,
    )  # fmt: skip
    model = CLIPVisionModel(config)
    model.save_pretrained(tmp_path, max_shard_size="8KB")
    assert (tmp_path / "model.safetensors.index.json").is_file()
    state, files = read_checkpoint(tmp_path)
    assert len(files) > 1
    loaded = CLIPVisionModel(config)
    loaded.load_state_dict(state, strict=False)
    wanted = model.state_dict()
    assert all(torch.equal(value, wanted[name]) for name, value in loaded.state_dict().items())


def test_links_into_blobs_are_followed(tmp_path: Path) -> None:
    blobs, snapshot = tmp_path / "blobs", tmp_path / "snapshots"
    blobs.mkdir()
    snapshot.mkdir()
    write(blobs, "model.safetensors.index.json")
    for path in blobs.iterdir():
        (snapshot / path.name).symlink_to(path)
    assert read_checkpoint(snapshot)[0].keys() == STATE.keys()


def test_a_shard_of_another_name_stays_out_of_the_way(tmp_path: Path) -> None:
    write(tmp_path, "model.safetensors.index.json")
    (tmp_path / "consolidated.safetensors").write_bytes(b"x")
    write(tmp_path, "pytorch_model.bin")
    assert len(read_checkpoint(tmp_path)[1]) == 2


@pytest.mark.parametrize("form", [form for form in WEIGHTS if "index" in form])
def test_a_shard_that_is_missing_or_extra_is_named(tmp_path: Path, form: str) -> None:
    write(tmp_path, form)
    first, second = weight_files(tmp_path)
    copy = second.with_name(f"{second.stem} (1){second.suffix}")
    copy.write_bytes(second.read_bytes())
    with pytest.raises(CheckpointError, match=r"\(1\).*: expected the 2 shards .* does not name"):
        read_checkpoint(tmp_path)
    copy.unlink()
    first.unlink()
    with pytest.raises(CheckpointError, match=f"{first.name}: expected a shard, .* no such file"):
        read_checkpoint(tmp_path)


def test_a_tensor_in_the_wrong_shard_is_named(tmp_path: Path) -> None:
    write(tmp_path, "model.safetensors.index.json")
    index = tmp_path / "model.safetensors.index.json"
    raw = json.loads(index.read_text())
    raw["weight_map"]["ids"] = "model-00002-of-00002.safetensors"
    index.write_text(json.dumps(raw))
    with pytest.raises(
        CheckpointError, match="ids: expected it in model-00002.*, found it in model-"
    ):
        read_checkpoint(tmp_path)


def test_an_empty_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="found an empty folder"):
        read_checkpoint(tmp_path)
