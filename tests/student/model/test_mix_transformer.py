"""Mix Transformers: published sizes, strict loading of the hub's layouts by name."""

from __future__ import annotations

import re
import sys

import pytest
import torch
from safetensors.torch import save_file

from pipeline.errors import CheckpointError, ConfigError
from student.model.backbone import Backbone
from student.model.mix_transformer import SIZES, Mit, _build, canonical

PUBLISHED_MILLIONS = {
    "mit_b0": 3.3, "mit_b1": 13.2, "mit_b2": 24.2, "mit_b3": 44.1, "mit_b4": 60.8, "mit_b5": 81.4,
}  # fmt: skip


@pytest.mark.parametrize("name", SIZES)
def test_encoders_have_their_published_size(name):
    with torch.device("meta"):
        net = _build(*SIZES[name])
    millions = sum(p.numel() for p in net.parameters()) / 1e6
    assert millions == pytest.approx(PUBLISHED_MILLIONS[name], abs=0.06)


def test_maps_of_odd_sizes_round_up():
    mit = Mit("mit_b0", "none").eval()
    with torch.no_grad():
        maps = mit(torch.rand(2, 3, 33, 57))
    assert [tuple(m.shape) for m in maps] == [
        (2, 32, 9, 15),
        (2, 64, 5, 8),
        (2, 160, 3, 4),
        (2, 256, 2, 2),
    ]
    assert Backbone("mit_b0", "none").channels == (32, 64, 160, 256)


def released(key: str) -> str:
    """A tensor's name in the released checkpoints, from this transformers' name."""
    for ours, theirs in (
        (r"^stages\.(\d)\.patch_embeddings", r"encoder.patch_embeddings.\1"),
        (r"^stages\.(\d)\.blocks", r"encoder.block.\1"),
        (r"^stages\.(\d)\.layer_norm", r"encoder.layer_norm.\1"),
        (r"attention\.q_proj", "attention.self.query"),
        (r"attention\.k_proj", "attention.self.key"),
        (r"attention\.v_proj", "attention.self.value"),
        (r"attention\.sequence_reduction\.sequence_reduction", "attention.self.sr"),
        (r"attention\.sequence_reduction\.layer_norm", "attention.self.layer_norm"),
        (r"attention\.o_proj", "attention.output.dense"),
        (r"mlp\.fc", "mlp.dense"),
        ("layernorm_before", "layer_norm_1"),
        ("layernorm_after", "layer_norm_2"),
    ):
        key = re.sub(ours, theirs, key)
    return key


@pytest.fixture(scope="module")
def original():
    torch.manual_seed(3)
    return Mit("mit_b0", "none").eval()


def state_of(original, layout):
    own = original.net.state_dict()
    named = {canonical(key): value for key, value in own.items()}
    if layout == "as saved now":
        return {f"segformer.{key}": value for key, value in named.items()}
    state = {released(key): value for key, value in named.items()}
    if layout == "classifier":
        state = {f"segformer.{key}": value for key, value in state.items()}
        state |= {"classifier.weight": torch.zeros(1000, 256), "classifier.bias": torch.zeros(1000)}
    if layout == "segmenter":
        state = {f"segformer.{key}": value for key, value in state.items()}
        state |= {"decode_head.classifier.weight": torch.zeros(19, 256, 1, 1)}
    return state


@pytest.mark.parametrize("layout", ["encoder", "classifier", "segmenter", "as saved now"])
@pytest.mark.parametrize("suffix", ["safetensors", "bin"])
def test_the_hubs_layouts_load_and_give_the_same_maps(original, layout, suffix, tmp_path):
    state = {key: value.contiguous() for key, value in state_of(original, layout).items()}
    path = tmp_path / f"model.{suffix}"
    save_file(state, path) if suffix == "safetensors" else torch.save(state, path)
    loaded = Mit("mit_b0", str(path)).eval()
    images = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        for one, other in zip(original(images), loaded(images), strict=True):
            assert torch.equal(one, other)


def test_released_names_are_those_of_the_released_checkpoints():
    # As in the hub's nvidia/mit-b0; fixed here, since the loading above would go round in circles.
    for theirs, ours in (
        (
            "segformer.encoder.patch_embeddings.0.proj.weight",
            "stages.0.patch_embeddings.proj.weight",
        ),
        (
            "segformer.encoder.block.1.0.attention.self.query.bias",
            "stages.1.blocks.0.attention.q_proj.bias",
        ),
        (
            "segformer.encoder.block.0.1.attention.self.sr.weight",
            "stages.0.blocks.1.attention.sequence_reduction.sequence_reduction.weight",
        ),
        (
            "segformer.encoder.block.0.1.attention.self.layer_norm.weight",
            "stages.0.blocks.1.attention.sequence_reduction.layer_norm.weight",
        ),
        (
            "segformer.encoder.block.3.1.mlp.dwconv.dwconv.bias",
            "stages.3.blocks.1.mlp.dwconv.dwconv.bias",
        ),
        ("segformer.encoder.block.3.1.layer_norm_2.bias", "stages.3.blocks.1.layernorm_after.bias"),
        ("segformer.encoder.layer_norm.2.weight", "stages.2.layer_norm.weight"),
    ):
        assert canonical(theirs) == ours


def test_missing_unexpected_and_misshaped_tensors_are_named(original, tmp_path):
    state = state_of(original, "encoder")
    path = tmp_path / "model.safetensors"
    some = "encoder.layer_norm.2.weight"
    save_file({k: v for k, v in state.items() if k != some}, path)
    with pytest.raises(
        CheckpointError, match=r"missing stages\.2\.layer_norm\.weight; unexpected none"
    ):
        Mit("mit_b0", str(path))
    save_file({**state, "encoder.extra": torch.zeros(1)}, path)
    with pytest.raises(CheckpointError, match=r"missing none; unexpected encoder\.extra"):
        Mit("mit_b0", str(path))
    save_file({**state, some: torch.zeros(3)}, path)
    with pytest.raises(CheckpointError, match=r"layer_norm\.weight \(160,\), found \(3,\)"):
        Mit("mit_b0", str(path))
    save_file(state, path)
    with pytest.raises(CheckpointError, match="mit_b1 needs tensor"):
        Mit("mit_b1", str(path))


def test_the_wrong_place_is_named(tmp_path, monkeypatch):
    with pytest.raises(CheckpointError, match="no such file"):
        Mit("mit_b0", str(tmp_path / "none.safetensors"))
    with pytest.raises(ConfigError, match="'package' holds no weights of mit_b0"):
        Mit("mit_b0", "package")
    asked = []

    def unreachable(repository, file, **_):
        asked.append((repository, file))
        raise OSError("no route to host")

    monkeypatch.setattr("huggingface_hub.hf_hub_download", unreachable)
    for weights in ("hub", "someone/mit-b0-tuned"):
        with pytest.raises(
            CheckpointError, match=r"no route to host.*set student\.weights to its local"
        ):
            Mit("mit_b0", weights)
    assert list(dict(asked)) == ["nvidia/mit-b0", "someone/mit-b0-tuned"]


def test_without_transformers_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(ConfigError, match="pip install transformers"):
        Mit("mit_b0", "none")
