"""What a step minimises: each term as its definition says, its weight, and what it leaves alone."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from torch.nn import functional

from pipeline.config.student import LscdConfig, StudentConfig
from pipeline.config.train import TrainConfig
from pipeline.modalities import KINDS
from student.data.train_stream import Batch
from student.losses.lscd import Lscd
from student.losses.objective import TERMS, Objective
from student.losses.segmentation import consistency_loss, segmentation_loss
from student.model.student import Student
from student.model.upsample import resize
from tests.student.losses.naive import unit

KIND_NAMES = ("rgb", "depth", "event", "nir", "lidar", "dolp", "aolp")
D = 6


def build(num_modalities=3, num_classes=5, lscd=None, reference=None, **fields):
    torch.manual_seed(0)
    # Plain, so that a test switches on what it is about.
    train = {"subset_draw": "uniform", "auxiliary_weight": 0.0}
    student = {
        "fusion": "mff",
        "backbone": "test_efficientnet",
        "weights": "none",
        "head_channels": 8,
    }
    for name, value in fields.items():
        (train if name in TrainConfig.model_fields else student)[name] = value
    terms = LscdConfig.model_validate({"inter": 0, "intra": 0} | (lscd or {}))
    student_config = StudentConfig(**student, lscd=terms)
    config = SimpleNamespace(seed=3, train=TrainConfig(**train), student=student_config)
    model = Student(student_config, {n: KINDS[n] for n in KIND_NAMES[:num_modalities]}, num_classes)
    prompts = unit(num_classes, D, seed=3).float()
    distilled = Lscd(terms, model.backbone.channels, prompts, D)
    return Objective(config, model.train(), distilled, torch.ones(num_classes), reference)


def batch(num_modalities=3, num_classes=5, size=(33, 57), missing=True, index=0) -> Batch:
    generator = torch.Generator().manual_seed(1)
    names = KIND_NAMES[:num_modalities]
    present = torch.ones(2, num_modalities, dtype=torch.bool)
    if missing and num_modalities > 1:
        present[1, 1] = False
    label = torch.randint(0, num_classes, (2, *size), generator=generator)
    label[0, :4] = 255
    inputs = {n: torch.rand(2, KINDS[n].channels, *size, generator=generator) for n in names}
    for m, name in enumerate(names):
        inputs[name][~present[:, m]] = torch.nan
    return Batch(
        index=index,
        refs=(None, None),
        inputs=inputs,
        present=present,
        label=label,
        view=torch.tensor([[0.0, -0.36, 1.0, 57 / 33, 0.0]] * 2),
        targets={
            "embedding": unit(2, num_modalities, D).float(),
            "patch": unit(2, num_modalities, 4, D).float(),
        },
        has_target=present,
    )


EVERYTHING = {
    "subset_weight": 1.0,
    "subset_draw": "weak_first",
    "consistency_weight": 0.5,
    "auxiliary_weight": 0.5,
    "ohem_threshold": 0.7,
    "lscd": {
        "inter": 1,
        "intra": 1,
        "dense": 1,
        "weak_power": 1.0,
    },
}


@pytest.mark.parametrize(("num_modalities", "num_classes"), [(1, 2), (2, 40), (5, 2), (7, 40)])
@pytest.mark.parametrize("fusion", ["mff", "concat", "cmnext"])
def test_any_number_of_modalities_and_classes_and_an_odd_size(num_modalities, num_classes, fusion):
    objective = build(
        num_modalities, num_classes, fusion=fusion, stems="per_modality", **EVERYTHING
    )
    terms = objective.terms(batch(num_modalities, num_classes))
    single = {"subset_ce", "consistency"} if num_modalities == 1 else set()
    assert set(terms) == set(TERMS) - single
    total = objective.total(terms)
    total.backward()
    assert torch.isfinite(total)
    grads = [p.grad for p in objective.model.parameters()]
    assert all(torch.isfinite(g).all() for g in grads if g is not None)


def test_terms_are_off_by_weight_and_the_sum_is_weighted():
    plain = build(subset_weight=0.0)
    assert set(plain.terms(batch())) == {"ce"}
    objective = build(**EVERYTHING)
    terms = {name: torch.tensor(float(i + 1)) for i, name in enumerate(TERMS)}
    weights = (1.0, 1.0, 0.5, 0.5, 1.0, 1.0, 1.0)
    expected = sum(w * (i + 1) for i, w in enumerate(weights))
    assert objective.total(terms).item() == pytest.approx(expected)


def test_the_two_cross_entropies_are_those_of_all_and_of_a_proper_subset():
    objective, data = build(subset_weight=1.0), batch()
    drawn = objective.draw_subset(data)
    assert (drawn <= data.present).all()
    assert drawn.any(1).all()
    assert (drawn != data.present).any(1).all()
    terms = objective.terms(data)
    model = objective.model
    logits = model.logits(model.features(data.inputs, data.present), data.present, drawn)
    parts = resize(logits, *data.label.shape[1:]).chunk(2)
    for name, part in zip(("ce", "subset_ce"), parts, strict=True):
        expected = segmentation_loss(part, data.label, objective.class_weights)
        torch.testing.assert_close(terms[name], expected)
    assert torch.equal(objective.draw_subset(data), drawn)


@pytest.mark.parametrize("averaged", [False, True])
def test_consistency_holds_the_subset_to_all_modalities(averaged):
    given = torch.randn(2, 5, 9, 15, generator=torch.Generator().manual_seed(4))
    reference = (lambda _: given) if averaged else None
    objective = build(subset_weight=0.0, consistency_weight=1.0, reference=reference)
    data = batch()
    terms = objective.terms(data)
    assert set(terms) == {"ce", "consistency"}
    model = objective.model
    features = model.features(data.inputs, data.present)
    full, subset = model.logits(features, data.present, objective.draw_subset(data)).chunk(2)
    expected = consistency_loss(subset, given if averaged else full)
    torch.testing.assert_close(terms["consistency"], expected)


def test_the_auxiliary_loss_is_over_each_present_modality_alone():
    objective, data = build(subset_weight=0.0, auxiliary_weight=1.0), batch()
    actual = objective.terms(data)["auxiliary"]
    model = objective.model
    features = model.features(data.inputs, data.present)
    pyramids = [model.fuse(features, data.present)]
    labels = []
    for m in range(3):
        only = torch.zeros_like(data.present)
        only[:, m] = data.present[:, m]
        kept = only[:, m]
        pyramids.append([stage[kept] for stage in model.fuse(features, only)])
        labels.append(data.label[kept])
    logits = model.decode(*pyramids)[2:]
    assert len(logits) == int(data.present.sum())
    small = functional.interpolate(torch.cat(labels)[:, None].float(), size=logits.shape[-2:])
    expected = segmentation_loss(logits, small[:, 0].long(), objective.class_weights)
    torch.testing.assert_close(actual, expected)


@pytest.mark.parametrize("auxiliary", [0.0, 1.0])
def test_the_running_iou_follows_training_and_touches_no_norm(auxiliary):
    objective = build(subset_draw="weak_first", auxiliary_weight=auxiliary, num_modalities=2)
    for index in range(2):
        before = objective.model.head.norm.num_batches_tracked.item()
        objective.terms(batch(2, missing=False, index=index))
        assert objective.model.head.norm.num_batches_tracked.item() == before + 1
        assert objective.model.head.training
    assert (objective.running.union_MK.sum(1) > 0).all()
    weak = objective.running.state_dict()
    other = build(subset_draw="weak_first", num_modalities=2)
    other.running.load_state_dict(weak)
    assert torch.equal(other.running.iou(), objective.running.iou())


@pytest.mark.parametrize(
    "fields",
    [
        {"subset_draw": "uniform"},
        {"subset_weight": 0.0, "subset_draw": "weak_first"},
        {"subset_draw": "uniform", "lscd": {"weak_power": 1.0}},
        {"subset_draw": "uniform", "lscd": {"inter": 1.0, "weak_power": 0.0}},
    ],
)
def test_single_modalities_are_not_scored_unless_something_depends_on_it(fields):
    objective = build(**fields)
    objective.terms(batch())
    assert not objective.watches_modalities
    assert objective.running.union_MK.sum() == 0
