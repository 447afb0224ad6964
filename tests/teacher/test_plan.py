"""Which modalities go through which tower."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pipeline.config import Config
from pipeline.errors import CheckpointError, ConfigError
from pipeline.targets import resolve
from pipeline.workspace import Workspace
from teacher.plan import plan_towers


def make_config(folder: Path, source: Path, modalities: dict[str, Any]) -> Config:
    return Config.model_validate(
        {
            "name": "plan",
            "workspace": str(folder),
            "dataset": {"adapter": "synthetic", "num_train": 1, "num_val": 1, "num_test": 1},
            "modalities": modalities,
            "teacher": {"name": str(source), "outputs": ["embedding", "patch"]},
        }
    )


def test_modalities_share_towers_and_every_request_leads_to_a_store(
    tmp_path: Path, source: Path
) -> None:
    modalities: dict[str, Any] = {"rgb": {}, "depth": {}, "event": {}, "lidar": {}}
    config = make_config(tmp_path, source, modalities)
    plans = plan_towers(config, Workspace.of(config))
    assert [tuple(plan.specs) for plan in plans] == [("rgb", "event"), ("depth", "lidar")]
    for plan in plans:
        for name, store in plan.stores.items():
            assert resolve(config, Workspace.of(config), name) == store
            assert store.provenance.outputs == {"embedding": (12,), "patch": (4, 12)}


@pytest.mark.parametrize(
    ("modality", "message"),
    [
        ({"rgb": {"tower": "depth"}}, r"modalities\.rgb\.tower: the depth tower reads millim"),
        ({"rgb": {"tower": "video"}}, r"modalities\.rgb\.tower: expected one of image, depth"),
    ],
)
def test_a_tower_that_cannot_read_a_modality_is_refused(
    tmp_path: Path, source: Path, modality: dict[str, Any], message: str
) -> None:
    config = make_config(tmp_path, source, modality)
    with pytest.raises(ConfigError, match=message):
        plan_towers(config, Workspace.of(config))


def test_a_tower_that_the_source_lacks_is_named(tmp_path: Path, source: Path) -> None:
    config = make_config(tmp_path, source, {"rgb": {"tower": "thermal"}})
    with pytest.raises(CheckpointError, match=r"LanguageBind_Thermal/config\.json"):
        plan_towers(config, Workspace.of(config))
