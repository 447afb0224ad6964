"""The weighted terms over a batch: every combination of term, distance, level and stages against
loops; what takes no part; what is built."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch.nn import functional

from pipeline.config.student import LscdConfig
from student.losses.correlation import class_areas
from student.losses.lscd import Lscd, TeacherBatch
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
    return [found * presence().T[:, :, None, None, None] for found in maps]


def fused_stages() -> list[torch.Tensor]:
    return [found.mean(0) for found in stages()]


def labels() -> torch.Tensor:
    found = torch.randint(0, K, (B, 32, 32), generator=torch.Generator().manual_seed(2))
    found[:, :3] = 255
    found[0][found[0] == 2] = 255
    return found


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
    return Lscd(config, CHANNELS, unit(K, D, seed=3), D, M).double()


def run(lscd: Lscd, batch: TeacherBatch, weights=None) -> dict[str, torch.Tensor]:
    maps, fused = ([s.double() for s in found] for found in (stages(), fused_stages()))
    return lscd(maps, presence(), labels(), batch, fused, weights)


def expected(lscd: Lscd, term: str, batch: TeacherBatch, weights=None) -> float:
    """The term from its definition: features, projections, rows, distances."""
    form = lscd.forms[term]
    embedding = batch.embedding if lscd.centre_MD is None else centred(lscd, batch.embedding)
    present, patch = presence(), batch.patch
    if form.level == "fused":
        embedding, patch = fused_rows(embedding, patch)
        present, weights = present.any(1, keepdim=True), None
    value_of = {"inter": inter, "language": language, "intra": intra, "dense": dense}[term]
    values = []
    for stage in form.stages:
        fused = form.level == "fused"
        maps = (fused_stages()[stage - 1][None] if fused else stages()[stage - 1]).double()
        arguments = (present, form.tau or lscd.config.tau, form.distance, weights)
        place = f"{form.level}_{stage}"
        values.append(value_of(lscd, maps, place, (embedding, patch, batch), arguments))
    return sum(values) / len(values)


def centred(lscd: Lscd, embedding: torch.Tensor) -> torch.Tensor:
    rows = [
        [naive.normed(row - c) for row, c in zip(rows, lscd.centre_MD, strict=True)]
        for rows in embedding
    ]
    return torch.stack([torch.stack(row) for row in rows])


def fused_rows(embedding: torch.Tensor, patch: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The teacher's answers of the present modalities as one."""
    there = [presence()[b].nonzero().flatten() for b in range(B)]
    zero = torch.zeros(D, dtype=torch.float64)
    embedding = torch.stack(
        [naive.normed(embedding[b, t].mean(0)) if len(t) else zero for b, t in enumerate(there)]
    )[:, None]
    patch = torch.stack(
        [patch[b, t].mean(0) if len(t) else patch[b, 0] for b, t in enumerate(there)]
    )[:, None]
    return embedding, patch


def pooled(maps: torch.Tensor) -> torch.Tensor:
    return torch.stack(
        [torch.stack([m.mean((1, 2)) for m in sample]) for sample in maps.transpose(0, 1)]
    )


def inter(lscd, maps, place, teacher, arguments):
    embedding, _, batch = teacher
    student = functional.normalize(pooled(maps), dim=-1)
    if lscd.config.cross_scene:
        return naive.cross_scene(student, embedding, *arguments)
    scene = None
    if lscd.config.scene_column:
        projected = functional.normalize(lscd.project_picture[place](pooled(maps)), dim=-1)
        scene = [
            torch.tensor(
                [[naive.dot(rows[b, m], batch.scene[b]) for m in range(M)] for b in range(B)]
            )
            for rows in (projected, embedding)
        ]
    return naive.inter(student, embedding, *arguments, scene)


def language(lscd, maps, place, teacher, arguments):
    student = functional.normalize(lscd.project_picture[place](pooled(maps)), dim=-1)
    return naive.language(student, teacher[0], lscd.prompts_KD, *arguments)


def intra(lscd, maps, place, teacher, arguments):
    present, tau, distance, weights = arguments
    size = maps.shape[-1]
    areas = class_areas(labels(), K, size, size).double()
    counts = (areas.sum(-1) > 0) & present.T[:, :, None]
    shares = areas / areas.sum(-1, keepdim=True).clamp_min(1)
    means = torch.einsum("bkl,mbcl->mbkc", shares, maps.flatten(3))
    projected = functional.normalize(lscd.project_class[place](means), dim=-1)
    return naive.intra(projected, counts, lscd.prompts_KD, tau, distance, weights)


def dense(lscd, maps, place, teacher, arguments):
    present, tau, distance, weights = arguments
    _, patch, batch = teacher
    projected = lscd.project_picture[place](maps.permute(0, 1, 3, 4, 2))
    size = maps.shape[-1]
    wanted, inside = resampled_patches(patch, batch.view.double(), size, size)
    counts = inside & present.T[:, :, None, None]
    return naive.dense(projected, wanted, counts, distance, lscd.prompts_KD, tau, weights)


COMBINATIONS = [
    (term, distance, level, places)
    for term, distance, level, places in itertools.product(
        ("inter", "language", "intra", "dense"),
        ("kl", "mse", "cosine"),
        ("modality", "fused"),
        ((4,), (2, 3)),
    )
    if (term, level) != ("inter", "fused")
]


@pytest.mark.parametrize(("term", "distance", "level", "places"), COMBINATIONS)
def test_every_form_of_every_term_equals_loops(term, distance, level, places):
    form = {"distance": distance, "level": level, "stages": places, "tau": 0.4}
    lscd = build(**{term: 1.0, f"{term}_form": form})
    found = run(lscd, teacher())
    assert list(found) == [term]
    wanted = expected(lscd, term, teacher())
    assert wanted > 0
    assert found[term].item() == pytest.approx(wanted, abs=1e-6)


@pytest.mark.parametrize(
    "options",
    [
        {"centre": True},
        {"cross_scene": True},
        {"cross_scene": True, "inter_form": {"level": "fused"}},
        {"cross_scene": True, "centre": True, "inter_form": {"distance": "mse"}},
        {"scene_column": True},
        {"scene_column": True, "centre": True, "inter_form": {"stages": [3, 4]}},
    ],
)
def test_inter_modal_options_equal_loops(options):
    lscd = build(inter=1.0, **options)
    if lscd.centre_MD is not None:
        lscd.centre_MD.copy_(0.5 * unit(M, D, seed=7))
    wanted = expected(lscd, "inter", teacher())
    assert wanted > 0
    assert run(lscd, teacher())["inter"].item() == pytest.approx(wanted, abs=1e-6)


@pytest.mark.parametrize("term", ["inter", "language", "intra", "dense"])
def test_rows_of_a_modality_weigh_what_they_are_told(term):
    lscd = build(**{term: 1.0})
    weights = [0.2, 1.0, 1.8]
    found = run(lscd, teacher(), torch.tensor(weights))[term].item()
    assert found == pytest.approx(expected(lscd, term, teacher(), weights), abs=1e-6)
    assert found != pytest.approx(run(lscd, teacher())[term].item(), abs=1e-6)


def test_each_term_has_its_own_temperature():
    one = build(inter=1.0, language=1.0, language_form={"tau": 2.0}, tau=0.3)
    other = build(inter=1.0, language=1.0, tau=0.3)
    found, plain = run(one, teacher()), run(other, teacher())
    assert found["inter"] == plain["inter"]
    assert found["language"] != plain["language"]


def test_gradients_reach_features_and_projections_and_are_right():
    lscd = build(inter=1.0, language=1.0, intra=1.0, dense=1.0)
    maps = [s.double().requires_grad_(place >= 2) for place, s in enumerate(stages())]

    def total(three: torch.Tensor, four: torch.Tensor) -> torch.Tensor:
        terms = lscd([*maps[:2], three, four], presence(), labels(), teacher())
        return sum(terms.values())

    # Absent features are 0 and have no direction: differences there mean nothing.
    there = presence().T[:, :, None, None, None]

    def of_present(three: torch.Tensor, four: torch.Tensor) -> torch.Tensor:
        return total(three * there, four * there)

    assert torch.autograd.gradcheck(of_present, (maps[2], maps[3]), fast_mode=True)
    total(maps[2], maps[3]).backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in lscd.parameters())


def test_terms_without_weight_are_not_computed_and_have_no_parameters():
    lscd = build()
    assert run(lscd, teacher()) == {}
    assert not list(lscd.parameters())


def test_one_projection_serves_the_terms_that_read_the_same_place():
    lscd = build(language=1.0, dense=1.0, intra=1.0, dense_form={"stages": [3, 4]})
    assert set(lscd.project_picture) == {"modality_4", "modality_3"}
    assert set(lscd.project_class) == {"modality_3"}


@pytest.mark.parametrize("level", ["modality", "fused"])
def test_absent_rows_of_the_teacher_are_not_looked_at(level):
    forms = {f"{t}_form": {"level": level} for t in ("inter", "language", "intra", "dense")}
    lscd = build(inter=1, language=1, intra=1, dense=1, cross_scene=True, **forms)
    one = run(lscd, teacher())
    embedding, patch = unit(B, M, D), unit(B, M, 4, D, seed=1)
    embedding[~presence()], patch[~presence()] = torch.nan, torch.nan
    other = run(lscd, teacher(embedding=embedding, patch=patch))
    assert set(one) == {"inter", "language", "intra", "dense"}
    for name in one:
        torch.testing.assert_close(one[name], other[name])
        assert one[name] > 0
    sum(other.values()).backward()
    assert all(torch.isfinite(p.grad).all() for p in lscd.parameters())


def test_a_row_that_the_teacher_lacks_takes_no_part():
    lscd = build(inter=1, language=1, dense=1)
    taught = presence().clone()
    taught[0, 1] = False
    one = run(lscd, teacher(taught=taught))
    embedding, patch = unit(B, M, D), unit(B, M, 4, D, seed=1)
    embedding[0, 1], patch[0, 1] = unit(D, seed=11), unit(4, D, seed=12)
    other = run(lscd, teacher(taught=taught, embedding=embedding, patch=patch))
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


def test_a_mirrored_sample_takes_no_part_in_the_pooled_terms():
    lscd = build(inter=1, language=1)
    views = view(0, 0, 1, 1, 0).repeat(B, 1)
    views[0, 4] = 1
    embedding = unit(B, M, D)
    one = run(lscd, teacher(view=views))
    embedding[0] = unit(M, D, seed=9)
    other = run(lscd, teacher(view=views, embedding=embedding))
    embedding[1] = unit(M, D, seed=10)
    third = run(lscd, teacher(view=views, embedding=embedding))
    for name in ("inter", "language"):
        assert one[name] == other[name]
        assert one[name] != third[name]


@pytest.mark.parametrize(("num_modalities", "num_classes"), [(1, 2), (2, 40), (5, 40), (7, 2)])
def test_any_number_of_modalities_classes_and_any_shape(num_modalities, num_classes):
    torch.manual_seed(0)
    config = LscdConfig(inter=1, language=1, intra=1, dense=1, cross_scene=True)
    lscd = Lscd(config, CHANNELS, unit(num_classes, D).float(), D, num_modalities)
    shapes = zip(CHANNELS, ((9, 15), (5, 8), (3, 4), (2, 2)), strict=True)
    maps = [torch.randn(num_modalities, 2, c, *size) for c, size in shapes]
    present = torch.ones(2, num_modalities, dtype=torch.bool)
    batch = TeacherBatch(
        view(0, -0.4, 1, 57 / 33, 0).repeat(2, 1),
        unit(2, num_modalities, D).float(),
        unit(2, num_modalities, 9, D).float(),
    )
    terms = lscd(maps, present, torch.randint(0, num_classes, (2, 33, 57)), batch)
    assert all(torch.isfinite(value) for value in terms.values())
    few = num_modalities == 1
    assert {name for name, value in terms.items() if value == 0} == ({"inter"} if few else set())
