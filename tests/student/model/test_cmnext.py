"""CMNeXt's parts against their description in loops, and what a missing side does."""

from __future__ import annotations

import math

import pytest
import torch

from student.model.cmnext import RECTIFY, CmnextStage, Fuse, PoolingMixer, Rectify, SelfQueryHub

C, H, W = 4, 5, 3


def maps(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def sigmoid(value: float) -> float:
    return 1 / (1 + math.exp(-value))


def test_the_hub_keeps_the_strongest_scored_response_of_those_present():
    torch.manual_seed(0)
    hub = SelfQueryHub(C, 3).double()
    features = maps(3, 2, C, H, W)
    present = torch.tensor([[True, True, False], [False, False, True]])
    actual = hub(features, present)
    for b in range(2):
        for y in range(H):
            for x in range(W):
                scored = []
                for a in range(3):
                    if present[b, a]:
                        vector = features[a, b, :, y, x].tolist()
                        weight = hub.score[a].weight.flatten().tolist()
                        score = sum(u * v for u, v in zip(weight, vector, strict=True))
                        gate = sigmoid(score + hub.score[a].bias.item())
                        scored.append([v + gate * v for v in vector])
                expected = [max(column) for column in zip(*scored, strict=True)]
                assert actual[b, :, y, x].tolist() == pytest.approx(expected, abs=1e-9)
    assert torch.equal(hub(features, torch.zeros(2, 3, dtype=torch.bool)), torch.zeros(2, C, H, W))


def test_rectification_adds_the_other_side_weighted_by_channel_and_position():
    torch.manual_seed(0)
    rectify = Rectify(C).double()
    one, other = maps(2, C, H, W), maps(2, C, H, W, seed=1)
    found_one, found_other = rectify(one, other)
    both = torch.cat([one, other], 1)
    pooled = torch.cat([both.mean((2, 3)), both.amax((2, 3))], 1)[:, :, None, None]
    channel = rectify.channel(pooled).sigmoid()
    position = rectify.position(both).sigmoid()
    for c, y, x in ((0, 0, 0), (3, 4, 2), (1, 2, 1)):
        by_other = channel[1, C + c, 0, 0] + position[1, 1, y, x]
        by_one = channel[1, c, 0, 0] + position[1, 0, y, x]
        a, b = one[1, c, y, x], other[1, c, y, x]
        assert found_one[1, c, y, x].item() == pytest.approx((a + RECTIFY * by_other * b).item())
        assert found_other[1, c, y, x].item() == pytest.approx((b + RECTIFY * by_one * a).item())


def test_fusion_lets_each_side_ask_the_others_context():
    torch.manual_seed(0)
    fuse = Fuse(C).double()
    one, other = maps(1, C, H, W), maps(1, C, H, W, seed=1)
    before = fuse(one, other)
    # One position of one side reaches every position of the result, through the context.
    changed = other.clone()
    changed[0, :, 0, 0] += 1
    moved = (fuse(one, changed) - before).abs().amax((0, 1))
    assert (moved > 0).all()
    assert before.shape == (1, C, H, W)


def test_the_mixer_pools_no_wider_than_it_says():
    torch.manual_seed(0)
    mixer = PoolingMixer(2).double()
    features = maps(1, 2, 40, 3)
    changed = features.clone()
    changed[0, :, 0] += 1
    local = mixer.local(changed) - mixer.local(features)
    assert local.abs().amax((0, 1, 3)).nonzero().max() == 3
    assert mixer(features).shape == features.shape


@pytest.mark.parametrize("num_modalities", [1, 2, 5])
def test_a_side_that_is_alone_stays_as_it_is(num_modalities):
    torch.manual_seed(0)
    stage = CmnextStage(C, num_modalities - 1).double()
    features = maps(num_modalities, 2, C, H, W)
    primary = torch.zeros(2, num_modalities, dtype=torch.bool)
    primary[:, 0] = True
    assert torch.equal(stage(features, primary), features[0])
    if num_modalities > 1:
        others = torch.ones(2, num_modalities, dtype=torch.bool)
        others[:, 0] = False
        mixed = stage.mixer(features[1:].flatten(0, 1)).view_as(features[1:])
        hub = stage.hub(mixed, others[:, 1:])
        torch.testing.assert_close(stage(features, others), hub)
        both = stage(features, torch.ones_like(others))
        assert not torch.allclose(both, features[0])


def test_nan_in_absent_rows_does_not_leak_into_result_or_gradient():
    torch.manual_seed(0)
    stage = CmnextStage(C, 2).double()
    features = maps(3, 2, C, H, W)
    present = torch.tensor([[True, True, False], [False, True, True]])
    expected = stage(features, present)
    features = features.masked_fill(~present.T[:, :, None, None, None], torch.nan).requires_grad_()
    actual = stage(features, present)
    assert torch.equal(actual, expected)
    actual.sum().backward()
    assert torch.isfinite(features.grad).all()
    assert all(torch.isfinite(p.grad).all() for p in stage.parameters())


def test_gradients():
    torch.manual_seed(0)
    stage = CmnextStage(2, 2).double()
    features = maps(3, 1, 2, 2, 2).requires_grad_()
    present = torch.ones(1, 3, dtype=torch.bool)
    assert torch.autograd.gradcheck(lambda f: stage(f, present), (features,))
