"""Views in the pass: each row is the tower's answer to that very crop, the same for all modalities."""

from __future__ import annotations

import numpy as np
import pytest

import teacher
from pipeline.config.config import Config
from pipeline.formats.image_codec import decode_image
from pipeline.formats.shard_tar import image_member, read_shard
from pipeline.shards.manifest import Manifest
from pipeline.targets.lookup import resolve
from pipeline.targets.views import ViewConfig, cut, draw_boxes
from pipeline.workspace import Workspace
from teacher.encoding.precompute import precompute
from teacher.encoding.views import stored_images_per_batch
from teacher.preprocessing.rendering import render

VIEWS = 3


@pytest.fixture
def view_config(config: Config) -> Config:
    update = {"views": VIEWS, "view_seed": 4, "view_scale": (0.3, 0.9)}
    return config.model_copy(update={"teacher": config.teacher.model_copy(update=update)})


def test_every_row_is_the_embedding_of_its_own_view(view_config: Config) -> None:
    workspace = Workspace.of(view_config)
    report = precompute(view_config, workspace, progress=False)
    assert (report.done, report.skipped) == (13, 0)
    settings = ViewConfig.of(view_config)
    assert settings is not None
    rows = 0
    for name, spec in view_config.specs().items():
        tower = teacher.load_tower(view_config.teacher.name, spec.tower)
        store = resolve(view_config, workspace, name)
        assert store.provenance.outputs["embedding"] == (VIEWS, store.provenance.dim)
        assert store.provenance.tower["views"]["seed"] == 4
        for shard in Manifest.load(workspace.dataset(view_config)).all_shards:
            members = dict(read_shard(shard.path, shard.sha256))
            found = {o: store.read(shard, o) for o in ("embedding", "patch", "view_box")}
            for row, key in enumerate(shard.keys):
                if not shard.present[name][row]:
                    assert all(np.isnan(array[row]).all() for array in found.values())
                    continue
                boxes = draw_boxes(key, 40, 50, settings)
                np.testing.assert_array_equal(found["view_box"][row], boxes)
                picture = decode_image(members[key][image_member(name)], spec, key)
                picture = render(picture, spec, "grey_stretched" if name == "nir" else "as_stored")
                shown = [cut(picture, box) for box in boxes]
                output = tower.encode(tower.preprocess(shown), patch=True)
                for out in ("embedding", "patch"):
                    expected = getattr(output, out).numpy()
                    np.testing.assert_allclose(found[out][row], expected, atol=6e-4)
                rows += 1
    assert rows == 3 * 13 - 2
    again = precompute(view_config, workspace, progress=False)
    assert (again.done, again.skipped) == (0, 13)


def test_views_are_another_store_and_leave_whole_pictures_alone(
    config: Config, view_config: Config
) -> None:
    workspace = Workspace.of(config)
    precompute(config, workspace, progress=False)
    before = resolve(config, workspace, "rgb")
    assert "views" not in before.provenance.tower
    assert set(before.provenance.outputs) == {"embedding", "patch"}
    report = precompute(view_config, workspace, progress=False)
    assert (report.done, report.skipped) == (12, 1)
    assert resolve(config, workspace, "rgb") == before
    assert resolve(view_config, workspace, "rgb").path != before.path


def test_a_batch_is_filled_with_views(config: Config, view_config: Config) -> None:
    assert stored_images_per_batch(config) == config.teacher.batch_size == 3
    assert stored_images_per_batch(view_config) == 1
    many = config.model_copy(
        update={"teacher": config.teacher.model_copy(update={"views": 8, "batch_size": 64})}
    )
    assert stored_images_per_batch(many) == 8
