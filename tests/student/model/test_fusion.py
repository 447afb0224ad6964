"""Every fusion: any subset, absent contents, the primary, the order of modalities; concatenation
against loops."""

from __future__ import annotations

from typing import get_args

import pytest
import torch
from torch.nn import functional

from pipeline.config.student import StudentConfig
from student.model.fusion import FUSIONS, StageFeatures, build_fusion

CHANNELS = (3, 4, 5, 6)
SIZES = ((5, 9), (3, 5), (2, 3), (1, 2))
NAMES = ("rgb", "depth", "nir", "event", "lidar", "dolp", "aolp")
ORDERLESS = ("mff", "mean")


def build(fusion: str, num_modalities: int, primary: str | None = None):
    torch.manual_seed(0)
    config = StudentConfig(fusion=fusion, primary=primary)
    return build_fusion(config, CHANNELS, NAMES[:num_modalities]).double()


def example(num_modalities: int, num_samples: int = 3) -> tuple[torch.Tensor, ...]:
    generator = torch.Generator().manual_seed(num_modalities)
    shapes = zip(CHANNELS, SIZES, strict=True)
    return tuple(
        torch.randn(num_modalities, num_samples, c, *s, dtype=torch.float64, generator=generator)
        for c, s in shapes
    )


def run(fusion, maps, present) -> list[torch.Tensor]:
    return fusion(StageFeatures(maps, fusion.grams(maps)), present)


def presence(num_modalities: int) -> torch.Tensor:
    """All; all but the primary; the primary alone."""
    present = torch.ones(3, num_modalities, dtype=torch.bool)
    if num_modalities > 1:
        present[1, 0] = False
        present[2, 1:] = False
    return present


@pytest.mark.parametrize("num_modalities", [1, 2, 5, 7])
@pytest.mark.parametrize("fusion", FUSIONS)
def test_any_number_and_any_subset_give_finite_maps_and_gradients(fusion, num_modalities):
    built, maps = build(fusion, num_modalities), example(num_modalities)
    maps = tuple(m.requires_grad_() for m in maps)
    fused = run(built, maps, presence(num_modalities))
    assert [tuple(f.shape) for f in fused] == [
        (3, c, *s) for c, s in zip(CHANNELS, SIZES, strict=True)
    ]
    sum(f.square().sum() for f in fused).backward()
    gradients = [*(m.grad for m in maps), *(p.grad for p in built.parameters())]
    assert all(torch.isfinite(g).all() for g in gradients if g is not None)


@pytest.mark.parametrize("fusion", FUSIONS)
def test_samples_do_not_see_each_other(fusion):
    built, maps, present = build(fusion, 4), example(4), presence(4)
    together = run(built, maps, present)
    for b in range(3):
        alone = run(built, tuple(m[:, b : b + 1] for m in maps), present[b : b + 1])
        for one, other in zip(together, alone, strict=True):
            torch.testing.assert_close(one[b : b + 1], other, rtol=0, atol=1e-10)


@pytest.mark.parametrize("fusion", FUSIONS)
def test_absent_rows_are_ignored(fusion):
    built, maps, present = build(fusion, 4), example(4), presence(4)
    before = run(built, maps, present)
    absent = ~present.T[:, :, None, None, None]
    changed = tuple(m.masked_fill(absent, 1e3) for m in maps)
    for one, other in zip(before, run(built, changed, present), strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-9)


@pytest.mark.parametrize("fusion", ORDERLESS)
def test_orderless_fusions_do_not_depend_on_the_order(fusion):
    built, maps, present = build(fusion, 4), example(4), presence(4)
    order = [2, 0, 3, 1]
    shuffled = run(built, tuple(m[order] for m in maps), present[:, order])
    for one, other in zip(run(built, maps, present), shuffled, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-10)


def test_rgb_only_is_the_primary_and_nothing_without_it():
    maps, present = example(4), presence(4)
    for primary, index in ((None, 0), ("nir", 2)):
        fused = run(build("rgb_only", 4, primary), maps, present)
        for stage, actual in zip(maps, fused, strict=True):
            expected = stage[index] * present[:, index, None, None, None]
            assert torch.equal(actual, expected)


def test_concatenation_starts_as_the_mean_over_all_with_absent_ones_as_zero():
    maps, present = example(4), presence(4)
    for stage, actual in zip(maps, run(build("concat", 4), maps, present), strict=True):
        expected = (stage * present.T[:, :, None, None, None]).sum(0) / 4
        torch.testing.assert_close(actual, expected)


def test_concatenation_equals_loops():
    built, maps, present = build("concat", 2), example(2), presence(2)
    torch.nn.init.normal_(built.mix[0].weight)
    actual = run(built, maps, present)[0]
    weight, bias = built.mix[0].weight[:, :, 0, 0], built.mix[0].bias
    for b in range(3):
        vector = [
            v if present[b, m] else 0.0 for m in range(2) for v in maps[0][m, b, :, 1, 2].tolist()
        ]
        for c in range(CHANNELS[0]):
            expected = (
                sum(w * v for w, v in zip(weight[c].tolist(), vector, strict=True)) + bias[c].item()
            )
            assert actual[b, c, 1, 2].item() == pytest.approx(expected, abs=1e-9)


def test_every_fusion_of_the_config_is_listed():
    assert set(FUSIONS) == set(get_args(StudentConfig.model_fields["fusion"].annotation))


@pytest.mark.parametrize("fusion", ["mff", "mean", "rgb_only"])
def test_these_fusions_have_no_parameters(fusion):
    assert not list(build(fusion, 4).parameters())


def test_cmnext_around_another_primary_is_the_same_with_modalities_swapped():
    maps, present = example(2), presence(2)[:2]
    maps = tuple(m[:, :2] for m in maps)
    one = run(build("cmnext", 2), maps, present)
    swapped = run(build("cmnext", 2, "depth"), tuple(m.flip(0) for m in maps), present.flip(1))
    for a, b in zip(one, swapped, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-12)


def test_pooled_features_of_every_fusion_can_be_normalised():
    for fusion in FUSIONS:
        for stage in run(build(fusion, 3), example(3), presence(3)):
            assert torch.isfinite(functional.normalize(stage.mean((2, 3)), dim=-1)).all()
