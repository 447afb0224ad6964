"""What a student is shown is what its teacher was shown: a live tower on the student's own view gives
the cached row of that view."""

from __future__ import annotations

import pytest
import torch

from pipeline.config.config import Config
from pipeline.shards.manifest import Manifest
from pipeline.shards.prepare import prepare
from pipeline.shards.sample_reader import SampleReader, list_samples
from pipeline.targets.views import ViewConfig
from pipeline.workspace import Workspace
from student.data.target_join import open_join
from student.data.train_stream import TrainStream, cut_sample, drawn_view
from student.runs.inputs import open_inputs
from teacher import load_tower
from teacher.encoding.precompute import precompute

ATOL = 1e-3
"""Of a unit vector's entries: half a step of float16 below 1, and a tower's batch-size noise."""


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Config:
    """Eight rendered scenes with three views, embedded by the packaged teacher."""
    config = Config.model_validate(
        {
            "name": "views",
            "workspace": str(tmp_path_factory.mktemp("views")),
            "dataset": {
                "adapter": "synthetic",
                "num_train": 8,
                "num_val": 1,
                "num_test": 1,
                "size_px": 96,
            },
            "modalities": {"rgb": {}, "depth": {}, "event": {}, "lidar": {}},
            "store": {"shard_size": 4},
            "prepare": {"workers": 1},
            "teacher": {"views": 3, "outputs": ["embedding", "patch"], "device": "cpu"},
            "student": {"lscd": {"inter": 0.05, "dense": 0.1}},
        }
    )
    workspace = Workspace.of(config)
    prepare(config, workspace, progress=False)
    precompute(config, workspace, progress=False)
    return config


@pytest.mark.slow
def test_a_live_tower_repeats_the_cached_row_of_the_students_view(config: Config) -> None:
    workspace, specs, views = Workspace.of(config), config.specs(), ViewConfig.of(config)
    assert views is not None
    inputs = open_inputs(config, workspace)
    samples = list_samples(inputs.manifest, "train", tuple(specs))
    join, refs, _ = open_join(inputs, samples)
    assert join is not None
    stream = TrainStream(refs, specs, 4, config.seed, 0, 4, join=join, views=views)
    towers = {name: load_tower(config.teacher.name, spec.tower) for name, spec in specs.items()}
    reader, mirrored = SampleReader(specs), set()
    for batch in stream:
        for b, ref in enumerate(batch.refs):
            boxes = join.boxes(ref)
            assert boxes is not None
            box = boxes[drawn_view(config.seed, batch.index * 4 + b, views)]
            mirrored.add(bool(box[4]))
            shown = cut_sample(reader.read(ref), box)
            for m, (name, tower) in enumerate(towers.items()):
                live = tower.encode(tower.preprocess([shown.arrays[name]]), patch=True)
                assert live.patch is not None
                found = (batch.targets["embedding"][b, m], batch.targets["patch"][b, m])
                for stored, answer in zip(found, (live.embedding[0], live.patch[0]), strict=True):
                    torch.testing.assert_close(stored, answer.cpu(), atol=ATOL, rtol=0)
    assert mirrored == {True, False}


@pytest.mark.slow
def test_a_mirrored_views_embedding_is_not_the_unmirrored_ones(config: Config) -> None:
    """The reason for storing views: flipping commutes with no tower."""
    tower = load_tower(config.teacher.name, "image")
    workspace = Workspace.of(config)
    manifest = Manifest.load(workspace.dataset(config))
    reader = SampleReader({"rgb": config.specs()["rgb"]})
    for ref in list_samples(manifest, "train", ("rgb",)):
        picture = reader.read(ref).arrays["rgb"]
        plain, mirrored = tower.encode(
            tower.preprocess([picture, picture[:, ::-1].copy()])
        ).embedding
        assert (plain - mirrored).abs().max() > 10 * ATOL
