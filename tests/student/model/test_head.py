"""The head computes what SegFormer's head computes."""

from __future__ import annotations

import torch
from torch.nn import functional

from student.model.head import MlpHead

CHANNELS = (3, 5, 6, 7)
SIZES = ((8, 12), (4, 6), (2, 3), (1, 2))


def test_equals_upsample_concatenate_project():
    torch.manual_seed(0)
    head = MlpHead(CHANNELS, 4, 5).double().eval()
    stages = [
        torch.randn(2, c, *s, dtype=torch.float64) for c, s in zip(CHANNELS, SIZES, strict=True)
    ]
    # SegFormer's own form: project to 4, upsample, concatenate, project 16 to 4.
    fuse = torch.randn(4, 16, dtype=torch.float64)
    projections = [torch.randn(4, c, dtype=torch.float64) for c in CHANNELS]
    with torch.no_grad():
        for i, (ours, projection) in enumerate(zip(head.project, projections, strict=True)):
            ours.weight.copy_((fuse[:, 4 * i : 4 * i + 4] @ projection)[..., None, None])
    upsampled = [
        functional.interpolate(
            functional.conv2d(stage, projection[..., None, None]), size=SIZES[0], mode="bilinear"
        )
        for stage, projection in zip(stages, projections, strict=True)
    ]
    mixed = functional.conv2d(torch.cat(upsampled, 1), fuse[..., None, None])
    expected = head.classify(torch.relu(head.norm(mixed)))
    torch.testing.assert_close(head(stages), expected, rtol=0, atol=1e-10)
