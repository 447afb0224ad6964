"""Two teachers of one sensor, end to end: the packaged one for `inter` and `intra`, a random one of another
width for `dense`."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from safetensors.numpy import load_file

from flows.integrity.audit import audit
from flows.integrity.finding import Kind
from flows.integrity.gc import collect
from flows.integrity.repair import repair
from flows.integrity.verify import verify
from flows.planning.coverage import coverage_map
from flows.planning.plan_run import plan_run
from flows.planning.status import first_missing, status_rows
from flows.report.sources import fingerprints, read_passes, scored_rows, target_stores
from flows.stages import load_stage
from pipeline.config.config import Config
from pipeline.errors import MissingTarget
from pipeline.shards.manifest import Manifest
from pipeline.shards.prepare import prepare
from pipeline.targets.lookup import resolve
from pipeline.targets.reader import CachedTeacher
from pipeline.workspace import Workspace
from student.evaluation.evaluate import evaluate
from student.runs.inputs import identify, open_inputs
from student.training.train import train
from teacher.encoding.dask_cluster import precompute_spread
from teacher.encoding.live import LiveTeacher
from teacher.encoding.precompute import precompute
from teacher.encoding.units import outdated_modalities
from tests.teacher.conftest import second_source
from tests.teacher.families.tiny_checkpoints import write_dino

__all__ = ["second_source"]

WIDTH, DENSE_WIDTH = 128, 8
NAMES = ("rgb", "depth")
DENSE = tuple(f"dense_teacher {name}" for name in NAMES)


def make(folder: Path, second: Path, **tables: object) -> Config:
    data = {"adapter": "synthetic", "num_train": 6, "num_val": 1, "num_test": 1, "size_px": 64}
    student = {"backbone": "test_efficientnet", "weights": "none", "head_channels": 8}
    lscd = {"inter": 0.05, "intra": 0.1, "dense": 0.05}
    fields: dict[str, object] = {
        "name": "two",
        "workspace": str(folder),
        "dataset": data,
        "modalities": {name: {} for name in NAMES},
        "store": {"shard_size": 4},
        "prepare": {"workers": 1},
        "teacher": {"batch_size": 3, "device": "cpu"},
        "dense_teacher": {"name": str(second)},
        "student": student | {"lscd": lscd},
        "train": {"steps": 3, "batch_size": 2, "threads": 1, "device": "cpu", "workers": 0},
        "evaluate": {"batch_size": 1},
    }
    return Config.model_validate(fields | tables)


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory, second_source: Path) -> Config:
    """A workspace with the targets of both teachers and no run."""
    config = make(tmp_path_factory.mktemp("two"), second_source)
    prepare(config, Workspace.of(config), progress=False)
    precompute(config, Workspace.of(config), progress=False)
    return config


@pytest.fixture
def copy(filled: Config, second_source: Path, tmp_path: Path) -> Config:
    """The same in a copy that the test may write to."""
    shutil.copytree(str(filled.workspace), tmp_path / "workspace")
    return make(tmp_path / "workspace", second_source)


def test_plan_status_and_coverage_count_both(second_source: Path, tmp_path: Path) -> None:
    config = make(tmp_path, second_source)
    workspace = Workspace.of(config)
    prepare(config, workspace, progress=False)
    plan = plan_run(config, workspace, probe=False)
    work = {(item.tower, item.modality): item for item in plan.towers}
    towers = ["image", "depth", "dense_teacher image", "dense_teacher depth"]
    assert list(work) == [*zip(towers, NAMES * 2, strict=True)]
    assert {item.num_images for item in work.values()} == {8}
    assert plan.num_bytes == sum(item.num_bytes for item in work.values())
    rows = [row.what for row in status_rows(config, workspace) if row.stage == "precompute"]
    assert rows == [*NAMES, *DENSE, "class prompts"]
    # The first teacher alone is not enough.
    first = config.for_teacher("teacher")
    precompute(first, workspace, progress=False)
    assert first_missing(config, workspace) == "precompute dense_teacher rgb: 4 shards"
    with pytest.raises(MissingTarget):
        identify(config, workspace)
    report = precompute(config, workspace, progress=False)
    assert (report.done, report.skipped) == (8, 9)
    assert first_missing(config, workspace) == "train main: 3 steps"
    states = coverage_map(config, workspace, Manifest.load(workspace.dataset(config))).counts
    outputs = {output for _, _, output in states}
    assert outputs == {"embedding", "dense_teacher embedding", "dense_teacher patch"}
    assert all(set(counts) == {"there"} for counts in states.values())
    assert plan_run(config, workspace).num_units == 0


@pytest.mark.slow
def test_the_probe_times_the_towers_of_both(second_source: Path, tmp_path: Path) -> None:
    config = make(tmp_path, second_source)
    prepare(config, Workspace.of(config), progress=False)
    probe = plan_run(config, Workspace.of(config)).probe
    assert probe is not None
    labels = {"image", "depth", "dense_teacher image", "dense_teacher depth"}
    assert set(probe.towers) == set(probe.commit_s) == labels


def test_examinations_cover_both_stores(copy: Config) -> None:
    workspace = Workspace.of(copy)
    seen = verify(copy, workspace, deep=True, progress=False)
    assert seen.findings == ()
    assert seen.examined["target stores"] == 4
    assert outdated_modalities(copy, workspace) == ()
    collection = collect(workspace, [copy])
    assert collection.items == ()
    # A config without the second teacher leaves its stores, and their index entries, to `gc`.
    alone = copy.for_teacher("teacher")
    kinds = [item.kind for item in collect(workspace, [alone]).items]
    assert kinds.count("target store") == kinds.count("index entry") == 2
    report = audit(copy, workspace, progress=False)
    assert report.passed
    assert [(row.modality, row.output) for row in report.rows] == [
        *[(name, "embedding") for name in NAMES],
        *[(n, f"dense_teacher {out}") for n in NAMES for out in ("embedding", "patch")],
    ]


def test_only_the_store_that_is_broken_is_rebuilt(copy: Config) -> None:
    workspace = Workspace.of(copy)
    shard = Manifest.load(workspace.dataset(copy)).shards("train")[0]
    first, dense = (resolve(own, workspace, "rgb") for own in copy.teachers().values())
    broken = dense.array("train", "patch").object_path(shard.index)
    whole = broken.read_bytes()
    broken.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    # A hole of the other teacher in the same shard is no damage.
    first.record_path(shard).unlink()
    first.array("train", "embedding").object_path(shard.index).unlink()
    report = repair(copy, workspace, progress=False)
    assert [finding.kind for finding in report.fixed] == [Kind.OBJECT_ALTERED]
    assert [left.finding.kind for left in report.left] == [Kind.HOLE]
    assert broken.read_bytes() == whole
    assert first.missing([shard]) == [shard]
    assert dense.missing([shard]) == []


@pytest.mark.slow
def test_a_student_learns_from_both(copy: Config) -> None:
    workspace = Workspace.of(copy)
    assert train(copy, workspace, progress=False).done == 3
    assert train(copy, workspace, progress=False).skipped == 3
    inputs = open_inputs(copy, workspace)
    run, source = inputs.run, inputs.teacher
    assert source is not None
    assert (source.width("embedding"), source.width("patch")) == (WIDTH, DENSE_WIDTH)
    for name, own in (("towers", "teacher"), ("dense_towers", "dense_teacher")):
        stores = {n: resolve(copy.for_teacher(own), workspace, n) for n in NAMES}
        assert run.identity[name] == {
            n: store.provenance.tower_fingerprint for n, store in stores.items()
        }
    losses = pq.read_table(run.metrics)
    assert all(value > 0 for term in ("inter", "dense") for value in losses[term].to_pylist())
    shapes = {n: t.shape for n, t in load_file(run.checkpoint).items() if "project" in n}
    assert shapes["lscd.project_dense.modality_4.weight"][0] == DENSE_WIDTH
    assert not any("project_picture" in name for name in shapes)
    evaluate(copy, workspace, progress=False)
    rows, _ = scored_rows(inputs)
    assert {line["name"] for line in fingerprints(rows[0])} > {"tower of rgb", "dense tower of rgb"}
    passes = list(read_passes(copy, inputs.manifest, target_stores(inputs)))
    assert [one.modality for one in passes] == [*NAMES, *DENSE]
    assert verify(copy, workspace, deep=True, progress=False).findings == ()
    # The run alone keeps both.
    assert collect(workspace, []).items == ()


@pytest.mark.slow
def test_a_loss_that_is_off_leaves_its_teacher_out_of_the_run(copy: Config) -> None:
    workspace = Workspace.of(copy)

    def identity(**lscd: float) -> dict[str, object]:
        terms = copy.student.lscd.model_copy(update=lscd)
        student = copy.student.model_copy(update={"lscd": terms})
        return identify(copy.model_copy(update={"student": student}), workspace).identity

    only_dense, only_inter = identity(inter=0.0), identity(dense=0.0)
    assert (only_dense["towers"], len(only_dense["dense_towers"])) == ({}, 2)  # type: ignore[arg-type]
    assert "dense_towers" not in only_inter
    terms = copy.student.lscd.model_copy(update={"inter": 0.0, "scene_column": False})
    student = copy.student.model_copy(update={"lscd": terms})
    assert train(copy.model_copy(update={"student": student}), workspace, progress=False).done == 3


@pytest.mark.slow
@pytest.mark.parametrize("views", [0, 2])
def test_the_live_teachers_give_what_the_caches_hold(
    second_source: Path, tmp_path: Path, views: int
) -> None:
    settings = {"batch_size": 3, "device": "cpu", "views": views}
    config = make(tmp_path, second_source, teacher=settings)
    workspace = Workspace.of(config)
    prepare(config, workspace, progress=False)
    precompute(config, workspace, progress=False)
    outputs = ("embedding", "patch", *(["view_box"] if views else []))
    cached = CachedTeacher.open(config, workspace, outputs)
    live = LiveTeacher.open(config, workspace)
    for output in outputs[:2]:
        assert live.width(output) == cached.width(output)
    for shard in Manifest.load(workspace.dataset(config)).shards("train"):
        ours, theirs = live.targets(shard), cached.targets(shard)
        for name in NAMES:
            for output in outputs:
                rows = [
                    np.stack([it[name][output][row] for row in range(shard.num_rows)])
                    for it in (ours, theirs)
                ]
                np.testing.assert_array_equal(*rows)
    assert train(config, workspace, progress=False).done == 3


@pytest.mark.slow
def test_language_and_dino_teach_one_student(tmp_path: Path) -> None:
    """The second teacher has an image tower alone, no text, and sees less of an image than the first."""
    write_dino(tmp_path / "dino")
    sensors: dict[str, object] = {"rgb": {}, "event": {}}
    config = make(tmp_path / "workspace", tmp_path / "dino", modalities=sensors)
    workspace = Workspace.of(config)
    for stage in ("prepare", "precompute", "train", "evaluate"):
        assert load_stage(stage)(config, workspace).done > 0
    inputs = open_inputs(config, workspace)
    assert inputs.teacher is not None
    assert (inputs.teacher.field("embedding"), inputs.teacher.field("patch")) == (1.0, 0.8)
    assert all(value > 0 for value in pq.read_table(inputs.run.metrics)["dense"].to_pylist())
    assert verify(config, workspace, deep=True, progress=False).findings == ()


@pytest.mark.slow
def test_workers_of_a_cluster_make_both(second_source: Path, tmp_path: Path) -> None:
    pytest.importorskip("distributed")
    config = make(tmp_path, second_source, scale={"workers": 2})
    workspace = Workspace.of(config)
    prepare(config, workspace, progress=False)
    report = precompute_spread(config, workspace, progress=False)
    assert (report.done, report.skipped) == (2 * 2 * 4 + 1, 0)
    assert precompute(config, workspace, progress=False).done == 0
