"""Every LSCD term against its definition written as loops in float64; gradients by finite
differences."""

from __future__ import annotations

import math

import pytest
import torch
from torch.nn import functional

from pipeline.config_student import LscdConfig
from student.lscd import (
    Lscd,
    TeacherBatch,
    class_areas,
    class_means,
    dense_loss,
    inter_modal_loss,
    intra_modal_loss,
    language_loss,
    shows_the_teachers_view,
)

B, M, D, K = 4, 3, 6, 5
TAU = 0.3


def unit(*shape: int, seed: int = 0) -> torch.Tensor:
    rows = torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    return functional.normalize(rows, dim=-1)


def presence() -> torch.Tensor:
    """All, all but one, exactly one, none of the modalities."""
    return torch.tensor([[1, 1, 1], [1, 0, 1], [0, 1, 0], [0, 0, 0]], dtype=torch.bool)


def softmax(row: list[float]) -> list[float]:
    top = max(row)
    powers = [math.exp(value - top) for value in row]
    return [power / sum(powers) for power in powers]


def kl(wanted: list[float], found: list[float]) -> float:
    pairs = zip(softmax(wanted), softmax(found), strict=True)
    return sum(p * math.log(p / q) for p, q in pairs)


def dot(a: torch.Tensor, b: torch.Tensor) -> float:
    return sum(x * y for x, y in zip(a.tolist(), b.tolist(), strict=True))


def test_inter_modal_equals_loops():
    student, teacher, present = unit(B, M, D), unit(B, M, D + 2, seed=1), presence()
    rows = []
    for b in range(B):
        there = [m for m in range(M) if present[b, m]]
        if len(there) < 2:
            continue
        for m in there:
            wanted = [dot(teacher[b, m], teacher[b, n]) / TAU for n in there]
            found = [dot(student[b, m], student[b, n]) / TAU for n in there]
            rows.append(kl(wanted, found))
    loss = inter_modal_loss(student, teacher, present, TAU)
    assert loss.item() == pytest.approx(sum(rows) / len(rows), abs=1e-9)


def test_language_equals_loops():
    student, teacher, prompts, present = (
        unit(B, M, D),
        unit(B, M, D, seed=1),
        unit(K, D, seed=2),
        presence(),
    )
    rows = [
        kl(
            [dot(teacher[b, m], prompt) / TAU for prompt in prompts],
            [dot(student[b, m], prompt) / TAU for prompt in prompts],
        )
        for b in range(B)
        for m in range(M)
        if present[b, m]
    ]
    loss = language_loss(student, teacher, prompts, present, TAU)
    assert loss.item() == pytest.approx(sum(rows) / len(rows), abs=1e-9)


def test_intra_modal_equals_loops():
    projected, prompts = unit(M, B, K, D), unit(K, D, seed=2)
    counts = torch.rand(M, B, K, generator=torch.Generator().manual_seed(3)) < 0.4
    rows = [
        kl(
            [dot(prompts[k], prompt) / TAU for prompt in prompts],
            [dot(projected[m, b, k], prompt) / TAU for prompt in prompts],
        )
        for m in range(M)
        for b in range(B)
        for k in range(K)
        if counts[m, b, k]
    ]
    loss = intra_modal_loss(projected, counts, prompts, TAU)
    assert loss.item() == pytest.approx(sum(rows) / len(rows), abs=1e-9)


@pytest.mark.parametrize(("size", "grid"), [((12, 18), (3, 5)), ((8, 8), (2, 2)), ((3, 3), (4, 4))])
def test_class_means_are_means_over_pixels(size, grid):
    generator = torch.Generator().manual_seed(0)
    label = torch.randint(0, K, (2, *size), generator=generator)
    label[:, 0] = 255
    label[1][label[1] == 2] = 255
    features = torch.randn(M, 2, 4, *grid, dtype=torch.float64, generator=generator)
    areas = class_areas(label, K, *grid).double()
    means = class_means(features, areas)
    pixels = functional.interpolate(features.flatten(0, 1), size=size, mode="nearest")
    pixels = pixels.view(M, 2, 4, *size)
    for m in range(M):
        for b in range(2):
            for k in range(K):
                there = label[b] == k
                expected = (
                    pixels[m, b][:, there].mean(1) if there.any() else torch.zeros(4).double()
                )
                torch.testing.assert_close(means[m, b, k], expected, rtol=0, atol=1e-9)


def view(top: float, left: float, height: float, width: float, mirrored: float) -> torch.Tensor:
    return torch.tensor([[top, left, height, width, mirrored]])


def test_dense_compares_the_places_that_the_student_sees():
    patches = unit(1, 1, 16, D)
    grid = patches.view(4, 4, D).permute(2, 0, 1)
    whole = grid[None, None]
    present = torch.ones(1, 1, dtype=torch.bool)
    zero = pytest.approx(0.0, abs=1e-6)
    assert dense_loss(whole, patches, view(0, 0, 1, 1, 0), present).item() == zero
    assert dense_loss(whole.flip(-1), patches, view(0, 0, 1, 1, 1), present).item() == zero
    corner = whole[..., 2:, :2]
    assert dense_loss(corner, patches, view(0.5, 0, 0.5, 0.5, 0), present).item() == zero
    mirrored = corner.flip(-1)
    assert dense_loss(mirrored, patches, view(0.5, 0, 0.5, 0.5, 1), present).item() == zero
    assert dense_loss(mirrored, patches, view(0.5, 0, 0.5, 0.5, 0), present).item() > 0.05


def test_dense_equals_loops_and_leaves_out_what_the_teacher_did_not_see():
    student = torch.randn(
        2, 1, D, 2, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(4)
    )
    patches = unit(1, 2, 4, D, seed=5)
    # A picture twice as wide as high: the teacher saw its middle, columns 1 and 2 of the map.
    loss = dense_loss(student, patches, view(0, -0.5, 1, 2, 0), torch.tensor([[True, False]]))
    grid = patches[0, 0].view(2, 2, D)
    cosines = [
        functional.cosine_similarity(student[0, 0, :, y, x + 1], grid[y, x], dim=0).item()
        for y in range(2)
        for x in range(2)
    ]
    assert loss.item() == pytest.approx(1 - sum(cosines) / 4, abs=1e-6)


def test_gradients():
    present = presence()
    student = unit(B, M, D).requires_grad_()
    teacher, prompts = unit(B, M, D, seed=1), unit(K, D, seed=2)
    counts = torch.ones(M, 1, K, dtype=torch.bool)
    projected = unit(M, 1, K, D, seed=3).requires_grad_()
    maps = unit(1, 1, 2, 2, D, seed=4).permute(0, 1, 4, 2, 3).requires_grad_()
    patches = unit(1, 1, 4, D, seed=5)
    whole, there = view(0, 0, 1, 1, 0), torch.ones(1, 1, dtype=torch.bool)
    check = torch.autograd.gradcheck
    assert check(lambda s: inter_modal_loss(s, teacher, present, TAU), (student,))
    assert check(lambda s: language_loss(s, teacher, prompts, present, TAU), (student,))
    assert check(lambda p: intra_modal_loss(p, counts, prompts, TAU), (projected,))
    assert check(lambda m: dense_loss(m, patches, whole, there), (maps,))


def stages() -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(6)
    sizes = ((4, 8), (5, 4), (6, 2), (7, 1))
    return [torch.randn(M, B, c, s, s, generator=generator) for c, s in sizes]


def test_terms_without_weight_are_not_computed_and_have_no_parameters():
    off = LscdConfig(inter=0, intra=0)
    lscd = Lscd(off, (4, 5, 6, 7))
    label = torch.zeros(B, 32, 32, dtype=torch.int64)
    whole = view(0, 0, 1, 1, 0).expand(B, 5)
    assert lscd(stages(), presence(), label, TeacherBatch(whole)) == {}
    assert not list(lscd.parameters())


def test_absent_rows_of_the_teacher_are_not_looked_at():
    config = LscdConfig(inter=1, language=1, intra=1, dense=1)
    torch.manual_seed(0)
    lscd = Lscd(config, (4, 5, 6, 7), unit(K, D).float(), D)
    label = torch.randint(0, K, (B, 32, 32))
    present = presence()
    embedding, patch = unit(B, M, D).float(), unit(B, M, 4, D).float()
    whole = view(0, 0, 1, 1, 0).expand(B, 5)
    one = lscd(stages(), present, label, TeacherBatch(whole, embedding, patch))
    embedding[~present], patch[~present] = 1e3, 1e3
    other = lscd(stages(), present, label, TeacherBatch(whole, embedding, patch))
    assert set(one) == {"inter", "language", "intra", "dense"}
    for name in one:
        torch.testing.assert_close(one[name], other[name])
        assert one[name] > 0


def test_a_batch_without_labels_or_pairs_costs_nothing():
    lscd = Lscd(LscdConfig(inter=1, intra=1), (4, 5, 6, 7), unit(K, D).float(), D)
    label = torch.full((B, 32, 32), 255)
    single = torch.tensor([[True, False, False]]).expand(B, M)
    whole = view(0, 0, 1, 1, 0).expand(B, 5)
    terms = lscd(stages(), single, label, TeacherBatch(whole, unit(B, M, D).float()))
    assert terms["inter"] == 0
    assert terms["intra"] == 0


@pytest.mark.parametrize(
    ("placed", "same"),
    [
        ((0, 0, 1, 1, 0), True),
        ((0, -0.5, 1, 2, 0), True),  # twice as wide as high: the teacher's square lies inside
        ((0, 0, 1, 1, 1), False),
        ((0, -0.5, 1, 2, 1), False),
        ((0.1, 0, 0.9, 1, 0), False),
        ((0, 0, 1, 0.99, 0), False),
    ],
)
def test_mirrored_and_cropped_views_are_not_the_teachers(placed, same):
    assert shows_the_teachers_view(view(*placed)).item() is same


def test_a_mirrored_sample_takes_no_part_in_the_pooled_terms():
    config = LscdConfig(inter=1, language=1, intra=0)
    torch.manual_seed(0)
    lscd = Lscd(config, (4, 5, 6, 7), unit(K, D).float(), D)
    label = torch.zeros(B, 32, 32, dtype=torch.int64)
    present = torch.ones(B, M, dtype=torch.bool)
    views = view(0, 0, 1, 1, 0).expand(B, 5).clone()
    views[0, 4] = 1
    embedding = unit(B, M, D).float()
    one = lscd(stages(), present, label, TeacherBatch(views, embedding))
    embedding[0] = unit(M, D, seed=9).float()
    other = lscd(stages(), present, label, TeacherBatch(views, embedding))
    embedding[1] = unit(M, D, seed=10).float()
    third = lscd(stages(), present, label, TeacherBatch(views, embedding))
    for name in ("inter", "language"):
        assert one[name] == other[name]
        assert one[name] != third[name]
