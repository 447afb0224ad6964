"""Ids of every subset against plain forward passes, whole and window by window."""

from __future__ import annotations

import pytest
import torch

from student.evaluation.predictions import predict_subsets, run_backbone
from student.evaluation.score_tables import all_subsets
from student.evaluation.sliding_window import Window, tiled, window_slices


@pytest.mark.parametrize("window", [None, Window(side_px=32, overlap=0.5)])
def test_predictions_equal_one_forward_pass_a_subset(two_sensor_batch, two_sensor_student, window):
    batch, model = two_sensor_batch, two_sensor_student
    subsets = all_subsets(model.modalities)
    with torch.inference_mode():
        parts = run_backbone(
            model, model.normalise(batch.inputs), batch.present, window_slices(64, 32, window)
        )
        found = predict_subsets(model, parts, batch.present, subsets, (64, 32))
    for subset, (ids, there) in zip(subsets, found, strict=True):
        present = batch.present & torch.tensor([name in subset for name in model.modalities])
        assert torch.equal(there, present.any(1))
        for b in there.nonzero().flatten().tolist():
            one = {name: value[b : b + 1] for name, value in batch.inputs.items()}
            with torch.inference_mode():
                expected = tiled(model, one, present[b : b + 1], window).argmax(1)[0]
            assert (ids[b] == expected).float().mean() > 0.999
