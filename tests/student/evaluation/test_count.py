"""Which pictures are scored in which batch, what is counted of them, which pictures are kept."""

from __future__ import annotations

import numpy as np
import pytest

from pipeline.formats.image_codec import decode_label
from pipeline.modalities import KINDS
from student.evaluation.count import EvaluationBatches, _write_predictions, pick_shown
from student.evaluation.predictions import predict_subsets, run_backbone
from student.evaluation.score_tables import all_subsets
from student.evaluation.sliding_window import window_slices

SPECS = {"rgb": KINDS["rgb"], "nir": KINDS["nir"]}


def test_a_sample_without_the_subset_has_no_prediction_image(
    two_sensor_batch, two_sensor_student, tmp_path
):
    batch, model = two_sensor_batch, two_sensor_student
    subsets = all_subsets(model.modalities)
    clean = run_backbone(
        model, model.normalise(batch.inputs), batch.present, window_slices(64, 32, None)
    )
    predictions = predict_subsets(model, clean, batch.present, subsets, (64, 32))
    _write_predictions(tmp_path, batch, {"a", "b"}, subsets, predictions)
    found = sorted(str(p.relative_to(tmp_path)) for p in tmp_path.rglob("*.png"))
    assert found == ["a/label.png", "a/nir.png", "a/rgb+nir.png", "a/rgb.png"] + [
        "b/label.png",
        "b/rgb+nir.png",
        "b/rgb.png",
    ]
    ids = decode_label((tmp_path / "a/nir.png").read_bytes(), "a")
    np.testing.assert_array_equal(ids, predictions[1][0][0].numpy())


class Ref:
    def __init__(self, key, condition="", height=4, width=4):
        self.key, self.condition, self.height, self.width = key, condition, height, width


@pytest.mark.parametrize("count", [0, 1, 3, 5, 50])
def test_shown_samples_are_spread_over_conditions(count):
    refs = [Ref(f"{c}{i}", c) for c, n in (("a", 6), ("b", 1), ("c", 4)) for i in range(n)]
    picked = pick_shown(refs, count)
    assert len({ref.key for ref in picked}) == len(picked)
    if count <= 11:
        assert len(picked) >= min(count, 3)
    assert {ref.condition for ref in picked} == {"abc"[i] for i in range(min(3, count))}


def test_batches_hold_images_of_one_size():
    sizes = [(4, 4)] * 5 + [(4, 6)] * 2 + [(4, 4)]
    refs = [Ref(str(i), "", *size) for i, size in enumerate(sizes)]
    parts = EvaluationBatches(refs, SPECS, 3).batches
    assert [[ref.key for ref in part] for part in parts] == [
        ["0", "1", "2"],
        ["3", "4"],
        ["5", "6"],
        ["7"],
    ]
