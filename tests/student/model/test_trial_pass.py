"""A student that cannot take the images is refused by name, whatever the reason; others pass."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from pipeline.config.config import Config
from pipeline.errors import ConfigError
from student.model.trial_pass import TrialShapes, require_student_fits

MakeConfig = Callable[..., Config]


def shapes(*train: tuple[int, int], num_images: int = 2, scored: Any = ()) -> TrialShapes:
    return TrialShapes(frozenset(train), frozenset(scored), num_images)


def student(backbone: str, **fields: Any) -> dict[str, Any]:
    return {"backbone": backbone, "weights": "none", "head_channels": 8, **fields}


@pytest.mark.parametrize("backbone", ["test_efficientnet", "test_convnext", "mit_b0"])
@pytest.mark.parametrize("stems", ["shared", "per_modality"])
def test_any_size_passes(make_config: MakeConfig, tmp_path: Any, backbone: str, stems: str) -> None:
    if (backbone, stems) == ("mit_b0", "per_modality"):
        pytest.skip("several convolutions read its image")
    config = make_config(tmp_path, student=student(backbone, stems=stems))
    sizes = [(33, 35), (64, 64), (200, 48)]
    require_student_fits(config, 5, shapes(*sizes, scored=[(64, 96)]))


def test_a_window_of_one_size_passes_at_it_and_is_refused_at_others(
    make_config: MakeConfig, tmp_path: Any
) -> None:
    config = make_config(tmp_path, student=student("swinv2_cr_tiny_ns_224"))
    require_student_fits(config, 5, shapes((224, 224)))
    with pytest.raises(ConfigError, match=r"cannot take images of 64 x 96 px.*student\.backbone"):
        require_student_fits(config, 5, shapes((64, 96)))
    with pytest.raises(ConfigError, match="cannot take images of 256 x 224 px"):
        require_student_fits(config, 5, shapes((224, 224), scored=[(256, 224)]))


def test_one_value_for_batch_norm_is_refused_with_the_batch_size_to_set(
    make_config: MakeConfig, tmp_path: Any
) -> None:
    train = {"batch_size": 2, "accumulate": 2, "device": "cpu"}
    config = make_config(tmp_path, student=student("resnet10t"), train=train)
    with pytest.raises(ConfigError, match=r"batch_size = 2 in 2 parts.*Set train.batch_size = 4"):
        require_student_fits(config, 5, shapes((32, 32), num_images=1))
    require_student_fits(config, 5, shapes((32, 32), num_images=2))
    require_student_fits(config, 5, shapes((64, 64), num_images=1))


def test_a_trial_draws_no_random_number(make_config: MakeConfig, tmp_path: Any) -> None:
    state = torch.random.get_rng_state()
    require_student_fits(make_config(tmp_path), 5, shapes((64, 64)))
    assert torch.equal(torch.random.get_rng_state(), state)
