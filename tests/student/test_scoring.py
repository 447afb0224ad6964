"""Counts over subsets and conditions against a loop of plain forward passes."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from pipeline.codecs import decode_label
from pipeline.config_student import StudentConfig
from pipeline.modalities import KINDS
from student.metrics import class_iou, miou
from student.model import Student
from student.scoring import (
    EvaluationBatches,
    Scores,
    _write_pictures,
    all_subsets,
    pick_pictures,
    predict_subsets,
    summarise,
)
from student.stream import Batch

SPECS = {"rgb": KINDS["rgb"], "nir": KINDS["nir"]}


def test_subsets_small_ones_first_in_the_configs_order():
    assert all_subsets(("r", "d", "e")) == (
        ("r",),
        ("d",),
        ("e",),
        ("r", "d"),
        ("r", "e"),
        ("d", "e"),
        ("r", "d", "e"),
    )
    assert len(all_subsets("abcd")) == 15


@pytest.fixture(scope="module")
def batch():
    generator = torch.Generator().manual_seed(0)
    return Batch(
        index=0,
        refs=(),
        inputs={
            n: torch.rand(3, s.channels, 64, 32, generator=generator) for n, s in SPECS.items()
        },
        present=torch.tensor([[True, True], [True, False], [False, True]]),
        label=torch.randint(0, 4, (3, 64, 32), generator=generator),
        view=torch.zeros(3, 5),
        targets={},
        taught=torch.zeros(3, 2, dtype=torch.bool),
    )


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    config = StudentConfig(backbone="test_efficientnet", weights="none", head_channels=8)
    return Student(config, SPECS, 4).eval()


def test_predictions_equal_one_forward_pass_a_subset(model, batch):
    subsets = all_subsets(tuple(SPECS))
    for subset, (ids, there) in zip(subsets, predict_subsets(model, batch, subsets), strict=True):
        present = batch.present & torch.tensor([name in subset for name in SPECS])
        assert torch.equal(there, present.any(1))
        for b in there.nonzero().flatten().tolist():
            one = {name: value[b : b + 1] for name, value in batch.inputs.items()}
            with torch.no_grad():
                expected = model(one, present[b : b + 1]).argmax(1)[0]
            assert (ids[b] == expected).float().mean() > 0.999


def test_a_sample_without_the_subset_has_no_prediction_picture(batch, model, tmp_path):
    subsets = all_subsets(tuple(SPECS))

    class Ref:
        def __init__(self, key):
            self.key = key

    shown = replace(batch, refs=tuple(Ref(key) for key in "abc"))
    predictions = predict_subsets(model, batch, subsets)
    _write_pictures(tmp_path, shown, {"a", "b"}, subsets, predictions)
    found = sorted(str(p.relative_to(tmp_path)) for p in tmp_path.rglob("*.png"))
    assert found == ["a/label.png", "a/nir.png", "a/rgb+nir.png", "a/rgb.png"] + [
        "b/label.png",
        "b/rgb+nir.png",
        "b/rgb.png",
    ]
    ids = decode_label((tmp_path / "a/nir.png").read_bytes(), "a")
    np.testing.assert_array_equal(ids, predictions[1][0][0].numpy())


def test_summary_of_known_counts():
    counts = np.zeros((3, 2, 3, 3), dtype=np.int64)
    counts[0, 0] = [[4, 0, 0], [4, 0, 0], [0, 0, 0]]
    counts[0, 1] = [[0, 0, 0], [0, 8, 0], [0, 0, 0]]
    counts[1] = counts[0][::-1]
    counts[2, 0] = [[4, 0, 0], [0, 4, 0], [0, 0, 0]]
    counts[2, 1] = [[0, 0, 0], [0, 8, 0], [0, 0, 0]]
    scores = Scores((("r",), ("d",), ("r", "d")), ("", "fog"), counts, np.array([5, 5, 5]))
    found = summarise(scores)
    single = miou(class_iou(counts[0].sum(0)))
    assert found["support"] == [4, 12, 0]
    assert found["all"] == 1.0
    assert found["subsets"][2]["miou_absent_zero"] == pytest.approx(2 / 3)
    assert found["subsets"][0]["miou"] == found["singles_mean"] == pytest.approx(single)
    assert found["mean"] == pytest.approx((2 * single + 1) / 3)
    assert found["worst"] == {"modalities": ["r"], "miou": pytest.approx(single)}
    assert found["subsets"][0]["per_condition"] == {"fog": 1.0}
    assert found["subsets"][0]["per_class"][2] is None
    assert found["majority_class_miou"] == pytest.approx(12 / 16 / 2)


class Ref:
    def __init__(self, key, condition="", height=4, width=4):
        self.key, self.condition, self.height, self.width = key, condition, height, width


@pytest.mark.parametrize("count", [0, 1, 3, 5, 50])
def test_pictures_are_spread_over_conditions(count):
    refs = [Ref(f"{c}{i}", c) for c, n in (("a", 6), ("b", 1), ("c", 4)) for i in range(n)]
    picked = pick_pictures(refs, count)
    assert len({ref.key for ref in picked}) == len(picked)
    if count <= 11:
        assert len(picked) >= min(count, 3)
    assert {ref.condition for ref in picked} == {"abc"[i] for i in range(min(3, count))}


def test_batches_hold_pictures_of_one_size():
    sizes = [(4, 4)] * 5 + [(4, 6)] * 2 + [(4, 4)]
    refs = [Ref(str(i), "", *size) for i, size in enumerate(sizes)]
    parts = EvaluationBatches(refs, SPECS, 3).parts
    assert [[ref.key for ref in part] for part in parts] == [
        ["0", "1", "2"],
        ["3", "4"],
        ["5", "6"],
        ["7"],
    ]
