"""The weighted terms over a batch: every term and distance against loops; what takes no part; what is
built."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from pipeline.config.student import LscdConfig
from student.losses.correlation import class_areas
from student.losses.lscd import TERMS, Lscd, TeacherBatch
from student.losses.patch_grid import resampled_patches
from tests.student.losses import naive
from tests.student.losses.naive import unit

B, M, D, K = 4, 3, 6, 5
CHANNELS = (4, 5, 6, 7)
SIZES = (8, 4, 2, 1)


def presence() -> torch.Tensor:
    """All, all but one, exactly one, none of the modalities."""
    return torch.tensor([[1, 1, 1], [1, 0, 1], [0, 1, 0], [0, 0, 0]], dtype=torch.bool)


def view(top: float, left: float, height: float, width: float, mirrored: float) -> torch.Tensor:
    return torch.tensor([[top, left, height, width, mirrored]])


def stages() -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(6)
    shapes = zip(CHANNELS, SIZES, strict=True)
    maps = [torch.randn(M, B, c, s, s, generator=generator) for c, s in shapes]
    return [stage * presence().T[:, :, None, None, None] for stage in maps]


def labels() -> torch.Tensor:
    label = torch.randint(0, K, (B, 32, 32), generator=torch.Generator().manual_seed(2))
    label[:, :3] = 255
    label[0][label[0] == 2] = 255
    return label


def teacher(**changes) -> TeacherBatch:
    whole = view(0, 0, 1, 1, 0).repeat(B, 1)
    fields = {
        "view": whole,
        "embedding": unit(B, M, D),
        "patch": unit(B, M, 4, D, seed=1),
        "scene": unit(B, D, seed=8),
    }
    return TeacherBatch(**(fields | changes))


def build(**fields) -> Lscd:
    torch.manual_seed(0)
    config = LscdConfig.model_validate({"inter": 0, "intra": 0} | fields)
    return Lscd(config, CHANNELS, unit(K, D, seed=3), D).double()


def run(lscd: Lscd, batch: TeacherBatch, weights=None) -> dict[str, torch.Tensor]:
    return lscd([s.double() for s in stages()], presence(), labels(), batch, weights)


def expected(lscd: Lscd, term: str, batch: TeacherBatch, weights=None) -> float:
    """The term from its definition: features, projections, rows, distances."""
    return {"inter": inter, "intra": intra, "dense": dense}[term](lscd, batch, weights)


def pooled(maps: torch.Tensor) -> torch.Tensor:
    return torch.stack(
        [torch.stack([m.mean((1, 2)) for m in sample]) for sample in maps.transpose(0, 1)]
    )


def inter(lscd, batch, weights):
    maps, config = stages()[3].double(), lscd.config
    student = functional.normalize(pooled(maps), dim=-1)
    scene = None
    if config.scene_column:
        projected = functional.normalize(lscd.project_picture["modality_4"](pooled(maps)), dim=-1)
        scene = [
            torch.tensor(
                [[naive.dot(rows[b, m], batch.scene[b]) for m in range(M)] for b in range(B)]
            )
            for rows in (projected, batch.embedding)
        ]
    arguments = (presence(), config.tau, config.distance, weights)
    return naive.inter(student, batch.embedding, *arguments, scene)


def intra(lscd, batch, weights):
    maps, config = stages()[2].double(), lscd.config
    size = maps.shape[-1]
    areas = class_areas(labels(), K, size, size).double()
    valid = (areas.sum(-1) > 0) & presence().T[:, :, None]
    shares = areas / areas.sum(-1, keepdim=True).clamp_min(1)
    means = torch.einsum("bkl,mbcl->mbkc", shares, maps.flatten(3))
    projected = functional.normalize(lscd.project_class["modality_3"](means), dim=-1)
    return naive.intra(projected, valid, lscd.prompts_KD, config.tau, config.distance, weights)


def dense(lscd, batch, weights):
    maps, config = stages()[3].double(), lscd.config
    projected = lscd.project_picture["modality_4"](maps.permute(0, 1, 3, 4, 2))
    size = maps.shape[-1]
    patches, inside = resampled_patches(batch.patch, batch.view.double(), size, size)
    valid = inside & presence().T[:, :, None, None]
    prompts, tau = lscd.prompts_KD, config.tau
    return naive.dense(projected, patches, valid, config.dense_distance, prompts, tau, weights)


@pytest.mark.parametrize(
    ("term", "options"),
    [
        ("inter", {"distance": "kl"}),
        ("inter", {"distance": "mse"}),
        ("inter", {"distance": "kl", "scene_column": True}),
        ("inter", {"distance": "mse", "scene_column": True}),
        ("intra", {"distance": "kl"}),
        ("intra", {"distance": "mse"}),
        ("dense", {"dense_distance": "cosine"}),
        ("dense", {"dense_distance": "kl"}),
    ],
)
def test_every_form_of_every_term_equals_loops(term, options):
    lscd = build(**{term: 1.0}, tau=0.4, **options)
    terms = run(lscd, teacher())
    assert list(terms) == [term]
    wanted = expected(lscd, term, teacher())
    assert wanted > 0
    assert terms[term].item() == pytest.approx(wanted, abs=1e-6)


@pytest.mark.parametrize("term", TERMS)
def test_rows_of_a_modality_are_weighted(term):
    lscd = build(**{term: 1.0})
    weights = [0.2, 1.0, 1.8]
    loss = run(lscd, teacher(), torch.tensor(weights))[term].item()
    assert loss == pytest.approx(expected(lscd, term, teacher(), weights), abs=1e-6)
    assert loss != pytest.approx(run(lscd, teacher())[term].item(), abs=1e-6)


def test_gradients_reach_features_and_projections_and_are_right():
    lscd = build(inter=1.0, intra=1.0, dense=1.0)
    maps = [s.double().requires_grad_(index >= 2) for index, s in enumerate(stages())]

    def total(three: torch.Tensor, four: torch.Tensor) -> torch.Tensor:
        terms = lscd([*maps[:2], three, four], presence(), labels(), teacher())
        return sum(terms.values())

    # Absent features are 0 and have no direction: differences there mean nothing.
    present = presence().T[:, :, None, None, None]

    def of_present(three: torch.Tensor, four: torch.Tensor) -> torch.Tensor:
        return total(three * present, four * present)

    assert torch.autograd.gradcheck(of_present, (maps[2], maps[3]), fast_mode=True)
    total(maps[2], maps[3]).backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in lscd.parameters())


def test_terms_without_weight_are_not_computed_and_have_no_parameters():
    lscd = build(scene_column=True)
    assert run(lscd, teacher()) == {}
    assert not list(lscd.parameters())


def test_one_projection_serves_the_terms_that_read_the_same_stage():
    lscd = build(inter=1.0, scene_column=True, dense=1.0, intra=1.0)
    assert set(lscd.state_dict()) == {
        f"{projection}.{part}"
        for projection in ("project_picture.modality_4", "project_class.modality_3")
        for part in ("weight", "bias")
    }


@pytest.mark.parametrize(
    "options", [{}, {"distance": "mse", "dense_distance": "kl"}, {"scene_column": True}]
)
def test_absent_rows_of_the_teacher_are_not_looked_at(options):
    lscd = build(inter=1, intra=1, dense=1, **options)
    one = run(lscd, teacher())
    embedding, patch = unit(B, M, D), unit(B, M, 4, D, seed=1)
    embedding[~presence()], patch[~presence()] = torch.nan, torch.nan
    other = run(lscd, teacher(embedding=embedding, patch=patch))
    assert set(one) == {"inter", "intra", "dense"}
    for name in one:
        torch.testing.assert_close(one[name], other[name])
        assert one[name] > 0
    sum(other.values()).backward()
    assert all(torch.isfinite(p.grad).all() for p in lscd.parameters())


def test_a_missing_target_takes_no_part():
    lscd = build(inter=1, dense=1)
    has_target = presence().clone()
    has_target[0, 1] = False
    one = run(lscd, teacher(has_target=has_target))
    embedding, patch = unit(B, M, D), unit(B, M, 4, D, seed=1)
    embedding[0, 1], patch[0, 1] = unit(D, seed=11), unit(4, D, seed=12)
    other = run(lscd, teacher(has_target=has_target, embedding=embedding, patch=patch))
    with_it = run(lscd, teacher(embedding=embedding, patch=patch))
    for name in one:
        assert one[name] == other[name]
        assert one[name] != with_it[name]


def test_a_batch_without_labels_or_pairs_costs_nothing():
    lscd = build(inter=1, intra=1)
    single = torch.tensor([[True, False, False]]).expand(B, M)
    maps = [s.double() for s in stages()]
    terms = lscd(maps, single, torch.full((B, 32, 32), 255), teacher())
    assert terms["inter"] == 0
    assert terms["intra"] == 0


def test_a_mirrored_sample_takes_no_part_in_the_inter_modal_term():
    lscd = build(inter=1)
    views = view(0, 0, 1, 1, 0).repeat(B, 1)
    views[0, 4] = 1
    embedding = unit(B, M, D)
    one = run(lscd, teacher(view=views))["inter"]
    embedding[0] = unit(M, D, seed=9)
    other = run(lscd, teacher(view=views, embedding=embedding))["inter"]
    embedding[1] = unit(M, D, seed=10)
    third = run(lscd, teacher(view=views, embedding=embedding))["inter"]
    assert one == other
    assert one != third


def test_a_second_teachers_patches_have_a_projection_of_their_own_width():
    own = 9
    torch.manual_seed(0)
    config = LscdConfig(inter=1, intra=0, dense=1, scene_column=True)
    lscd = Lscd(config, CHANNELS, None, D, own).double()
    assert lscd.project_picture["modality_4"].out_features == D
    assert lscd.project_dense["modality_4"].out_features == own
    batch = teacher(patch=unit(B, M, 4, own, seed=1))
    terms = run(lscd, batch)
    lscd.project_picture["modality_4"].weight.data *= -1
    assert run(lscd, batch)["dense"] == terms["dense"]
    assert run(lscd, batch)["inter"] != terms["inter"]
    lscd.project_dense["modality_4"].weight.data *= -1
    assert run(lscd, batch)["dense"] != terms["dense"]
    shared = Lscd(config, CHANNELS, None, D)
    assert {name.split(".")[0] for name in shared.state_dict()} == {"project_picture"}


def test_only_dense_needs_no_other_width_than_its_own():
    lscd = Lscd(LscdConfig(inter=0, intra=0, dense=1), CHANNELS, None, None, 9).double()
    assert {name.split(".")[0] for name in lscd.state_dict()} == {"project_dense"}
    assert torch.isfinite(run(lscd, teacher(patch=unit(B, M, 4, 9)))["dense"])


@pytest.mark.parametrize(("num_modalities", "num_classes"), [(1, 2), (2, 40), (5, 40), (7, 2)])
def test_any_number_of_modalities_classes_and_any_shape(num_modalities, num_classes):
    torch.manual_seed(0)
    lscd = Lscd(LscdConfig(inter=1, intra=1, dense=1), CHANNELS, unit(num_classes, D).float(), D)
    shapes = zip(CHANNELS, ((9, 15), (5, 8), (3, 4), (2, 2)), strict=True)
    maps = [torch.randn(num_modalities, 2, c, *size) for c, size in shapes]
    present = torch.ones(2, num_modalities, dtype=torch.bool)
    whole = torch.tensor([[0, -0.4, 1, 57 / 33, 0]]).repeat(2, 1)
    batch = TeacherBatch(
        whole,
        unit(2, num_modalities, D).float(),
        unit(2, num_modalities, 9, D).float(),
    )
    terms = lscd(maps, present, torch.randint(0, num_classes, (2, 33, 57)), batch)
    assert all(torch.isfinite(value) for value in terms.values())
    few = num_modalities == 1
    assert {name for name, value in terms.items() if value == 0} == ({"inter"} if few else set())
