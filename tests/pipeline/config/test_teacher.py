"""Two teachers in one config: what the second shares with the first, what is refused, and that a config
without one is what it was."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import pytest

from pipeline.config.load import dump_config, load_config, rows
from pipeline.config.teacher import of_teacher
from pipeline.targets.lookup import target_request
from teacher.encoding.units import Unit
from tests.pipeline.config.small_config import load, message

DENSE = "dense_teacher.name=other"


def test_the_second_teacher_shares_device_batches_and_views(tmp_path: Path) -> None:
    config = load(
        tmp_path,
        *(DENSE, "dense_teacher.dtype=bfloat16", "dense_teacher.antialias=true"),
        *("teacher.views=3", "teacher.view_seed=2", "teacher.batch_size=5", "teacher.device=cpu"),
    )
    second = config.for_teacher("dense_teacher").teacher
    assert (second.name, second.dtype, second.antialias) == ("other", "bfloat16", True)
    assert (second.views, second.view_seed, second.batch_size) == (3, 2, 5)
    assert (second.device, second.outputs) == ("cpu", ("embedding", "patch"))
    assert config.for_teacher("teacher").teacher == config.teacher
    assert list(config.teachers()) == ["teacher", "dense_teacher"]
    assert all(own.dense_teacher is None for own in config.teachers().values())


def test_a_dense_teacher_stands_in_for_patches_of_the_first(tmp_path: Path) -> None:
    config = load(tmp_path, DENSE, "student.lscd.dense=1.0")
    assert config.teacher.outputs == ("embedding",)
    assert "[dense_teacher]" in message(tmp_path, "student.lscd.dense=1.0")


def test_the_two_never_ask_for_one_store(tmp_path: Path) -> None:
    config = load(tmp_path, DENSE, 'teacher.outputs=["embedding", "patch"]')
    first, second = (target_request(own, "rgb") for own in config.teachers().values())
    assert first == target_request(load(tmp_path, 'teacher.outputs=["embedding","patch"]'), "rgb")
    assert {name for name in first if first[name] != second[name]} == {"teacher"}


@pytest.mark.parametrize(
    ("overrides", "parts"),
    [
        ([DENSE, "dense_teacher.outputs=['patch']"], ["dense_teacher.outputs: no such field"]),
        ([DENSE, "dense_teacher.views=2"], ["dense_teacher.views: no such field"]),
        (["dense_teacher.dtype=float16"], ["dense_teacher.name: missing"]),
        (
            ["dense_teacher.name=languagebind-tiny"],
            ["dense_teacher.name = 'languagebind-tiny' is the teacher itself", "teacher.outputs"],
        ),
        (
            [DENSE, "student.lscd.dense=1.0", "student.lscd.dense_distance=kl"],
            ["student.lscd.dense_distance = 'kl'", "[dense_teacher]", "'cosine'"],
        ),
    ],
)
def test_what_the_second_teacher_cannot_do_is_refused_by_name(
    tmp_path: Path, overrides: list[str], parts: list[str]
) -> None:
    text = message(tmp_path, *overrides)
    for part in parts:
        assert part in text


def test_the_first_teacher_with_other_weights_or_sizes_may_be_the_second(tmp_path: Path) -> None:
    same_name = ("dense_teacher.name=languagebind-tiny", "dense_teacher.antialias=true")
    assert load(tmp_path, *same_name).dense_teacher is not None


def test_rows_and_written_configs_keep_it(tmp_path: Path) -> None:
    row = "compare={ off = ['student.lscd.dense=0'], on = ['student.lscd.dense=0.2'] }"
    config = load(tmp_path, DENSE, row)
    (tmp_path / "again.toml").write_text(dump_config(config))
    assert load_config(tmp_path / "again.toml") == config
    assert {own.dense_teacher for own in rows(config).values()} == {config.dense_teacher}


def test_a_config_without_one_is_what_it_was(tmp_path: Path) -> None:
    config = load(tmp_path)
    assert config.teachers() == {"teacher": config}
    assert "dense" not in dump_config(config).replace("dense = ", "").replace("dense_distance", "")
    assert "dense_teacher" not in config.model_dump(exclude_none=True)
    assert target_request(config, "rgb") == {
        "schema": 1,
        "teacher": "languagebind-tiny",
        "revision": None,
        "arithmetic": "float32",
        "outputs": ["embedding"],
        "tower": "image",
        "spec": config.specs()["rgb"].identity(),
        "max_depth_m": None,
        "depth_holes": None,
        "antialias": False,
        "dtype": "float16",
    }
    unit = Unit("train", 0, "image", ("rgb",), 4)
    assert (str(unit), unit.label) == ("train-000000 image (rgb)", "image")
    assert unit == Unit(**{k: v for k, v in asdict(unit).items() if k != "teacher"})
    assert str(Unit("train", 0, "image", ("rgb",), 4, "dense_teacher")) == (
        "train-000000 dense_teacher image (rgb)"
    )
    assert (of_teacher("teacher", "rgb"), of_teacher("dense_teacher", "rgb")) == (
        "rgb",
        "dense_teacher rgb",
    )
