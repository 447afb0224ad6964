"""The student as a whole: any subset, absent contents, any size, one order of modalities."""

from __future__ import annotations

import pytest
import torch

from pipeline.config.student import StudentConfig
from pipeline.modalities import KINDS
from student.model.student import Student

SPECS = {"rgb": KINDS["rgb"], "depth": KINDS["depth"], "nir": KINDS["nir"]}


def build(**fields) -> Student:
    torch.manual_seed(0)
    config = StudentConfig(
        **({"backbone": "test_efficientnet", "weights": "none", "head_channels": 8} | fields)
    )
    return Student(config, SPECS, 5).eval()


def inputs(height: int = 64, width: int = 96) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {
        n: torch.rand(2, s.channels, height, width, generator=generator) for n, s in SPECS.items()
    }


PRESENT = torch.tensor([[True, True, True], [True, False, True]])


@pytest.mark.parametrize("size", [(64, 96), (70, 50), (33, 64)])
@pytest.mark.parametrize("fusion", ["mff", "mean"])
def test_logits_at_the_size_of_the_inputs(size, fusion):
    logits = build(fusion=fusion)(inputs(*size), PRESENT)
    assert logits.shape == (2, 5, *size)
    assert torch.isfinite(logits).all()


@pytest.mark.parametrize("training", [False, True])
def test_what_an_absent_tensor_holds_changes_nothing(training):
    model = build().train(training)
    images = inputs()
    before = model.features(images, PRESENT)
    images["depth"][1] = torch.nan
    after = model.features(images, PRESENT)
    for one, other in zip((*before.maps, *before.grams), (*after.maps, *after.grams), strict=True):
        assert torch.equal(one, other)


def test_a_subset_is_scored_as_if_nothing_else_existed():
    model, images = build(), inputs()
    shared = model.features(images, torch.ones_like(PRESENT))
    subset = torch.tensor([[True, False, True]]).expand(2, 3)
    alone = model.features(images, subset)
    torch.testing.assert_close(model.logits(shared, subset), model.logits(alone, subset))


def test_several_subsets_at_once_equal_one_by_one():
    model, features = build(), None
    features = model.features(inputs(), PRESENT)
    subsets = [PRESENT, PRESENT & torch.tensor([True, False, False])]
    together = model.logits(features, *subsets)
    for part, subset in zip(together.chunk(2), subsets, strict=True):
        torch.testing.assert_close(part, model.logits(features, subset))


def test_the_order_in_which_inputs_are_given_does_not_matter():
    model, images = build(), inputs()
    backwards = dict(reversed(images.items()))
    assert torch.equal(model(images, PRESENT), model(backwards, PRESENT))


def test_colour_gets_the_backbones_statistics_and_sensors_their_own():
    model = build(backbone="tf_efficientnet_lite0")
    assert model.input_statistics.statistics_M23[0].tolist() == [[0.5] * 3, [0.5] * 3]
    depth = SPECS["depth"]
    assert model.input_statistics.statistics_M23[1].tolist() == [list(depth.mean), list(depth.std)]


def test_the_state_holds_weights_only():
    assert not [key for key in build().state_dict() if "statistics" in key]
