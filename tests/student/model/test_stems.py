"""Per-modality stems: own first convolution, each from the same weights, all else shared."""

from __future__ import annotations

import pytest
import timm
import torch
from safetensors.torch import save_file

from pipeline.errors import ConfigError
from student.model.backbone import Backbone
from student.model.stems import split_stem

NAMES = ("test_efficientnet", "test_convnext", "pvt_v2_b0", "mit_b0")


@pytest.mark.parametrize("name", NAMES)
def test_stems_start_alike_and_serve_their_own_rows(name):
    torch.manual_seed(0)
    shared = Backbone(name, "none").eval()
    torch.manual_seed(0)
    own = Backbone(name, "none", 3).eval()
    images = torch.rand(4, 3, 33, 57)
    rows = (1, 0, 3)
    with torch.no_grad():
        for one, other in zip(shared(images), own(images, rows), strict=True):
            torch.testing.assert_close(one, other, rtol=0, atol=1e-6)
        stem = own._stems[0]
        stem.convs[2].weight *= -1
        changed = own(images, rows)
        before = shared(images)
    assert torch.allclose(changed[0][:1], before[0][:1], atol=1e-6)
    assert not torch.allclose(changed[0][1:], before[0][1:], atol=1e-3)


@pytest.mark.parametrize("name", NAMES)
def test_only_the_first_convolution_is_multiplied(name):
    shared, own = Backbone(name, "none"), Backbone(name, "none", 3)
    count = [sum(p.numel() for p in b.parameters()) for b in (shared, own)]
    stem = sum(p.numel() for p in own._stems[0].convs[0].parameters())
    assert count[1] - count[0] == 2 * stem
    assert len(own.state_dict()) - len(shared.state_dict()) == 2 * len(
        own._stems[0].convs[0].state_dict()
    )


def test_pretrained_weights_go_into_each(tmp_path):
    torch.manual_seed(1)
    full = timm.create_model("test_efficientnet")
    save_file(full.state_dict(), tmp_path / "weights.safetensors")
    own = Backbone("test_efficientnet", str(tmp_path / "weights.safetensors"), 2)
    for conv in own._stems[0].convs:
        assert torch.equal(conv.weight, full.conv_stem.weight)


def test_a_modality_without_rows_gets_a_gradient_of_zero():
    own = Backbone("test_efficientnet", "none", 2)
    sum(m.sum() for m in own(torch.rand(2, 3, 32, 32), (2, 0))).backward()
    grads = [conv.weight.grad for conv in own._stems[0].convs]
    assert grads[0].abs().sum() > 0
    assert torch.equal(grads[1], torch.zeros_like(grads[1]))


def test_a_network_whose_stem_cannot_be_told_is_refused():
    two = torch.nn.ModuleList([torch.nn.Conv2d(3, 4, 1), torch.nn.Conv2d(3, 4, 1)])
    with pytest.raises(ConfigError, match=r"found 0, 1\. Set student\.stems to 'shared'"):
        split_stem(two, "two", 2)
