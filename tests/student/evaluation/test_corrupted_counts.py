"""Corrupted inputs against plain passes, one sample and subset at a time, and the cases in which two
benchmarks must agree."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch.nn.functional import interpolate

from student.evaluation import corrupted_counts as robustness
from student.evaluation.corrupted_counts import CorruptionCounter
from student.evaluation.corruptions import (
    LOST_SHARES,
    NOISE_LEVELS,
    NoiseLevel,
    add_noise,
    lose_elements,
)
from student.evaluation.corruptions import generator as random_of
from student.evaluation.iou import confusion
from student.evaluation.predictions import predict_subsets, run_backbone
from student.evaluation.score_tables import all_subsets
from student.evaluation.sliding_window import Window, window_slices
from tests.student.conftest import TWO_SENSORS, two_sensor_model

SEED = 3
SUBSETS = all_subsets(tuple(TWO_SENSORS))


def clean_parts(model, batch, window=None):
    inputs = model.normalise(batch.inputs)
    return run_backbone(model, inputs, batch.present, window_slices(64, 32, window))


@torch.inference_mode()
def counted(model, batch, window=None) -> CorruptionCounter:
    found = CorruptionCounter(model, SUBSETS, TWO_SENSORS, SEED)
    found.add(batch, clean_parts(model, batch, window))
    return found


@torch.inference_mode()
def naive(model, batch, corruption) -> torch.Tensor:
    """(S, K, K): `corruption(clean, in_subset, key, modality)` of every input, one pass each."""
    counts = torch.zeros(len(SUBSETS), 4, 4, dtype=torch.int64)
    for s, subset in enumerate(SUBSETS):
        for b, ref in enumerate(batch.refs):
            there = [
                name in subset and bool(batch.present[b, m]) for m, name in enumerate(TWO_SENSORS)
            ]
            if not any(there):
                continue
            one = {name: value[b : b + 1] for name, value in batch.inputs.items()}
            inputs = model.normalise(one)
            for m, name in enumerate(TWO_SENSORS):
                if not batch.present[b, m]:
                    inputs[m] = 0
                inputs[m, 0] = corruption(inputs[m, 0], name in subset, ref.key, name)
            present = torch.ones(1, 2, dtype=torch.bool)
            logits = model.logits(model.features_of(inputs, present), present)
            ids = interpolate(logits, size=(64, 32), mode="bilinear").argmax(1)
            counts[s] += confusion(ids, batch.label[b : b + 1], torch.tensor([0]), 1, 4)[0]
    return counts


def assert_same_pixels(found: torch.Tensor, wanted: torch.Tensor) -> None:
    """Rounding may flip single pixels between two equally likely classes."""
    assert torch.equal(found.sum((-1, -2)), wanted.sum((-1, -2)))
    assert int((found - wanted).abs().sum()) <= 2e-3 * int(wanted.sum())


STUDENTS = [
    {},
    {"fusion": "mff", "stems": "per_modality"},
    {"fusion": "concat"},
    {"fusion": "cmnext"},
    {"fusion": "rgb_only"},
]


@pytest.mark.parametrize("student", STUDENTS, ids=lambda s: "+".join(map(str, s.values())) or "mff")
def test_zero_filled_equals_a_forward_pass_on_zeros(two_sensor_batch, student, monkeypatch):
    monkeypatch.setattr(robustness, "LOST_SHARES", ())
    monkeypatch.setattr(robustness, "NOISE_LEVELS", ())
    model = two_sensor_model(**student)

    def zeros(clean, in_subset, key, name):
        return clean if in_subset else torch.zeros_like(clean)

    found = counted(model, two_sensor_batch).missing_TSKK[0]
    assert_same_pixels(found, naive(model, two_sensor_batch, zeros))


@pytest.mark.parametrize("table", [1, 3])
def test_elements_are_dropped_before_the_backbone(two_sensor_batch, two_sensor_student, table):
    share = LOST_SHARES[table - 1]

    def losing(clean, in_subset, key, name):
        rng = random_of(SEED, f"RMM {share:g}", key, name)
        return clean if in_subset else lose_elements(clean, share, rng)

    found = counted(two_sensor_student, two_sensor_batch).missing_TSKK[table]
    assert_same_pixels(found, naive(two_sensor_student, two_sensor_batch, losing))


def test_noise_is_added_to_all_present_modalities(two_sensor_batch, two_sensor_student):
    level = NOISE_LEVELS[1]

    def noisy(clean, in_subset, key, name):
        return add_noise(clean, level, True, random_of(SEED, "NM mid", key, name))

    whole = replace(
        two_sensor_batch,
        refs=two_sensor_batch.refs[:1],
        inputs={name: value[:1] for name, value in two_sensor_batch.inputs.items()},
        present=two_sensor_batch.present[:1],
        label=two_sensor_batch.label[:1],
    )
    found = counted(two_sensor_student, whole).noisy_LKK[1]
    assert_same_pixels(found, naive(two_sensor_student, whole, noisy)[-1])


def test_events_get_no_gaussian_noise(two_sensor_batch, two_sensor_student, monkeypatch):
    monkeypatch.setattr(robustness, "LOST_SHARES", ())
    loud = NoiseLevel("loud", 0.0, 5.0)
    monkeypatch.setattr(robustness, "NOISE_LEVELS", (loud,))
    model = two_sensor_student
    inputs = model.normalise(two_sensor_batch.inputs)
    specs = TWO_SENSORS | {"nir": replace(TWO_SENSORS["nir"], kind="event")}
    counts = CorruptionCounter(model, SUBSETS, specs, SEED)
    noisy = counts._corrupted(inputs, two_sensor_batch, "NM loud", counts._noise(loud))
    assert (noisy[0] - inputs[0]).std() == pytest.approx(5.0, rel=0.05)
    assert torch.equal(noisy[1], inputs[1])


def test_benchmarks_agree_without_corruption_and_with_all_elements_dropped(
    two_sensor_batch, two_sensor_student, monkeypatch
):
    monkeypatch.setattr(robustness, "LOST_SHARES", (0.0, 1.0))
    monkeypatch.setattr(robustness, "NOISE_LEVELS", (NoiseLevel("none", 0.0, 0.0),))
    model, batch = two_sensor_student, two_sensor_batch
    found = counted(model, batch)
    emm, nothing_lost, all_lost = found.missing_TSKK
    assert_same_pixels(all_lost, emm)
    # With nothing lost every subset is the full set, over the samples that it scores.
    assert torch.equal(nothing_lost[-1], emm[-1])
    with torch.inference_mode():
        ids, _ = predict_subsets(
            model, clean_parts(model, batch), batch.present, SUBSETS, (64, 32)
        )[-1]
    clean = confusion(ids, batch.label, torch.zeros(3, dtype=torch.int64), 1, 4)[0]
    assert torch.equal(found.noisy_LKK[0], clean)


def test_corruption_depends_on_the_seed_and_not_on_the_batch(two_sensor_batch, two_sensor_student):
    whole = counted(two_sensor_student, two_sensor_batch)
    order = [2, 0, 1]
    turned = replace(
        two_sensor_batch,
        refs=tuple(two_sensor_batch.refs[b] for b in order),
        inputs={name: value[order] for name, value in two_sensor_batch.inputs.items()},
        present=two_sensor_batch.present[order],
        label=two_sensor_batch.label[order],
    )
    again = counted(two_sensor_student, turned)
    assert_same_pixels(again.missing_TSKK, whole.missing_TSKK)
    assert_same_pixels(again.noisy_LKK, whole.noisy_LKK)
    other = CorruptionCounter(two_sensor_student, SUBSETS, TWO_SENSORS, SEED + 1)
    with torch.inference_mode():
        other.add(two_sensor_batch, clean_parts(two_sensor_student, two_sensor_batch))
    assert torch.equal(other.missing_TSKK[0], whole.missing_TSKK[0])
    assert not torch.equal(other.missing_TSKK[1:], whole.missing_TSKK[1:])
    assert not torch.equal(other.noisy_LKK, whole.noisy_LKK)


def test_windows_cut_the_corrupted_image(two_sensor_batch, two_sensor_student):
    """A window as large as the picture changes nothing; small ones predict the same samples."""
    whole = counted(two_sensor_student, two_sensor_batch)
    large = counted(two_sensor_student, two_sensor_batch, Window(side_px=64))
    assert torch.equal(large.missing_TSKK, whole.missing_TSKK)
    small = counted(two_sensor_student, two_sensor_batch, Window(side_px=32, overlap=0.5))
    assert torch.equal(small.missing_TSKK.sum((-1, -2)), whole.missing_TSKK.sum((-1, -2)))
    assert not torch.equal(small.missing_TSKK, whole.missing_TSKK)
