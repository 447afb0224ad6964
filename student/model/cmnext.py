"""One stage of CMNeXt's asymmetric fusion (Zhang et al., CVPR 2023), written from the paper's text.

Hub: each auxiliary modality goes through a parallel pooling mixer (PPX); the Self-Query Hub scores
every position of it, and the strongest response among the auxiliaries is kept per channel. Fuse:
the primary modality and the hub rectify each other by channel and by position (FRM) and are mixed
by cross-attention (FFM), both as in CMX (Zhang et al., 2023).

Simplified, since here one backbone serves all modalities and runs before fusion: the PPX is a block
a stage, shared by the auxiliaries, instead of an encoder of its own; nothing is fed back into the
next stage; one attention head; layer norm instead of batch norm, so that samples stay independent
of each other. A sample with one side alone (no auxiliary, or no primary) keeps that side unchanged.

Legend: A auxiliary modalities, B samples, C channels, H W space, N = H W.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

POOLS_PX = (3, 7, 11)
RECTIFY = 0.5
"""Weight of the channel and of the spatial rectification, as in CMX."""


class PoolingMixer(nn.Module):
    """PPX: several average pools gate the features; then a feed-forward and a squeeze-and-excite
    branch."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.local = nn.Conv2d(channels, channels, 7, padding=3, groups=channels)
        self.gate = nn.Conv2d(channels, channels, 1)
        self.norm = _channel_norm(channels)
        self.feed = _two_layers(channels, channels)
        self.excite = _two_layers(channels, channels, max(1, channels // 4))

    def forward(self, features_NCHW: Tensor) -> Tensor:
        """(N, C, H, W) to the same shape."""
        local = self.local(features_NCHW)
        pooled = [
            functional.avg_pool2d(local, size, stride=1, padding=size // 2) for size in POOLS_PX
        ]
        gate = torch.sigmoid(self.gate(torch.stack(pooled).sum(0) + local))
        gated = features_NCHW + gate * features_NCHW
        channel = torch.sigmoid(self.excite(gated.mean((2, 3), keepdim=True)))
        mixed: Tensor = gated + self.feed(self.norm(gated)) + channel * gated
        return mixed


class SelfQueryHub(nn.Module):
    """Scores every auxiliary modality per position and keeps the strongest response."""

    def __init__(self, channels: int, num_auxiliaries: int) -> None:
        super().__init__()
        self.score = nn.ModuleList(nn.Conv2d(channels, 1, 1) for _ in range(num_auxiliaries))

    def forward(self, auxiliary_ABCHW: Tensor, present_BA: Tensor) -> Tensor:
        """(B, C, H, W); 0 for a sample without auxiliaries."""
        scored = torch.stack(
            [
                f + torch.sigmoid(score(f)) * f
                for score, f in zip(self.score, auxiliary_ABCHW, strict=True)
            ]
        )
        absent_AB111 = ~present_BA.T[:, :, None, None, None]
        # amax shares the gradient among equals, so that none is preferred by its order.
        best_BCHW = scored.masked_fill(absent_AB111, -torch.inf).amax(0)
        return best_BCHW.masked_fill(absent_AB111.all(0), 0)


class Rectify(nn.Module):
    """FRM: each side is corrected by the other, weighted per channel and per position."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.channel = _two_layers(4 * channels, 2 * channels, channels)
        self.position = _two_layers(2 * channels, 2, channels)

    def forward(self, one_BCHW: Tensor, other_BCHW: Tensor) -> tuple[Tensor, Tensor]:
        """Both sides, rectified."""
        both = torch.cat([one_BCHW, other_BCHW], dim=1)
        pooled = torch.cat([both.mean((2, 3), keepdim=True), both.amax((2, 3), keepdim=True)], 1)
        of_one, of_other = torch.sigmoid(self.channel(pooled)).chunk(2, dim=1)
        at_one, at_other = torch.sigmoid(self.position(both)).chunk(2, dim=1)
        return (
            one_BCHW + RECTIFY * (of_other + at_other) * other_BCHW,
            other_BCHW + RECTIFY * (of_one + at_one) * one_BCHW,
        )


class Fuse(nn.Module):
    """FFM: each side attends to the other's global context (linear attention); then both are mixed."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.query = nn.ModuleList(nn.Conv2d(channels, channels, 1) for _ in range(2))
        self.context = nn.ModuleList(
            nn.Conv2d(channels, 2 * channels, 1, bias=False) for _ in range(2)
        )
        self.norm = nn.ModuleList(_channel_norm(channels) for _ in range(2))
        self.merge = nn.Conv2d(2 * channels, channels, 1)
        self.local = nn.Conv2d(channels, channels, 3, padding=1, groups=channels)

    def forward(self, one_BCHW: Tensor, other_BCHW: Tensor) -> Tensor:
        """(B, C, H, W)."""
        sides = [norm(side) for norm, side in zip(self.norm, (one_BCHW, other_BCHW), strict=True)]
        contexts = [self._context(i, side) for i, side in enumerate(sides)]
        attended = [
            self._attend(self.query[i](side), context)
            for i, (side, context) in enumerate(zip(sides, reversed(contexts), strict=True))
        ]
        merged = self.merge(torch.cat([one_BCHW + attended[0], other_BCHW + attended[1]], dim=1))
        mixed: Tensor = merged + self.local(merged)
        return mixed

    def _context(self, side: int, features_BCHW: Tensor) -> Tensor:
        """(B, C, C): for each value channel, weights over the key channels."""
        keys, values = self.context[side](features_BCHW).flatten(2).chunk(2, dim=1)
        weights: Tensor = (keys @ values.mT / keys.shape[-1]).softmax(dim=1)
        return weights

    @staticmethod
    def _attend(query_BCHW: Tensor, context_BCC: Tensor) -> Tensor:
        attended_BCN: Tensor = context_BCC.mT @ query_BCHW.flatten(2)
        return attended_BCN.view_as(query_BCHW)


class CmnextStage(nn.Module):
    """Primary and auxiliaries of one stage to one map."""

    def __init__(self, channels: int, num_auxiliaries: int) -> None:
        super().__init__()
        self.mixer = PoolingMixer(channels)
        self.hub = SelfQueryHub(channels, num_auxiliaries)
        self.rectify = Rectify(channels)
        self.fuse = Fuse(channels)

    def forward(self, features_MBCHW: Tensor, present_BM: Tensor) -> Tensor:
        """(B, C, H, W). The first modality is the primary; rows of absent ones hold anything."""
        absent_MB111 = ~present_BM.T[:, :, None, None, None]
        clean = features_MBCHW.masked_fill(absent_MB111, 0)
        primary, auxiliary = clean[0], clean[1:]
        if not auxiliary.shape[0]:
            return primary
        mixed = self.mixer(auxiliary.flatten(0, 1)).view_as(auxiliary)
        hub = self.hub(mixed, present_BM[:, 1:])
        fused = self.fuse(*self.rectify(primary, hub))
        has_primary = present_BM[:, 0, None, None, None]
        has_hub = present_BM[:, 1:].any(1)[:, None, None, None]
        return torch.where(has_primary & has_hub, fused, torch.where(has_primary, primary, hub))


def _channel_norm(channels: int) -> nn.GroupNorm:
    """Normalises all channels and positions of one sample together."""
    return nn.GroupNorm(1, channels)


def _two_layers(channels: int, out: int, hidden: int | None = None) -> nn.Sequential:
    hidden = hidden or 2 * channels
    return nn.Sequential(nn.Conv2d(channels, hidden, 1), nn.GELU(), nn.Conv2d(hidden, out, 1))
