"""Config files: round trips, overrides, paths, comparison rows."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline.config.config import Config
from pipeline.config.data import ModalityConfig, StoreConfig
from pipeline.config.load import MAIN_ROW, dump_config, load_config, row_config, rows
from pipeline.config.student import LscdConfig, StudentConfig
from pipeline.config.teacher import TeacherConfig
from pipeline.config.train import TrainConfig
from pipeline.datasets.folder import FolderOptions
from pipeline.errors import ConfigError
from pipeline.modalities import KINDS
from tests.pipeline.config.small_config import load, message

TEXT = st.text(min_size=1, max_size=12).filter(lambda text: not text.startswith(("./", "../")))
POSITIVE = st.floats(min_value=1e-6, max_value=1e6)
CONFIGS = st.builds(
    Config,
    name=st.from_regex(r"[A-Za-z0-9][A-Za-z0-9_-]{0,20}", fullmatch=True),
    seed=st.integers(0, 2**31),
    workspace=st.sampled_from([Path("/data/ws"), Path("ws")]),
    dataset=st.builds(
        FolderOptions,
        root=st.just(Path("/data")),
        classes=st.lists(TEXT, min_size=3, max_size=5, unique=True),
        remap=st.dictionaries(st.integers(0, 200), st.sampled_from([0, 1, 2, 255])),
        missing=st.sampled_from(["refuse", "allow"]),
    ),
    modalities=st.dictionaries(
        st.sampled_from(["rgb", "left", "depth"]),
        st.builds(
            ModalityConfig,
            kind=st.sampled_from(sorted(KINDS)),
            max_value=st.none() | POSITIVE,
        ),
        min_size=1,
    ),
    store=st.builds(StoreConfig, shard_size=st.integers(1, 512)),
    teacher=st.builds(
        TeacherConfig,
        name=TEXT,
        outputs=st.sampled_from([("embedding",), ("patch", "embedding")]),
        max_depth_m=st.none() | POSITIVE,
    ),
    student=st.builds(StudentConfig, lscd=st.builds(LscdConfig, inter=st.just(0), intra=POSITIVE)),
    train=st.builds(TrainConfig, lr=POSITIVE, crop_px=st.none() | st.integers(1, 512)),
)


@given(config=CONFIGS)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_dumped_config_loads_as_an_equal_one(tmp_path: Path, config: Config) -> None:
    path = tmp_path / "dumped.toml"
    path.write_text(dump_config(config))
    assert load_config(path) == config


@given(
    steps=st.integers(1, 10**6), lr=POSITIVE, flip=st.floats(0, 1), name=st.text("ab_", min_size=1)
)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_overrides_replace_exactly_their_fields(
    tmp_path: Path, steps: int, lr: float, flip: float, name: str
) -> None:
    overrides = [
        f"train.steps={steps}",
        f"train.lr={lr!r}",
        f"train.flip={flip!r}",
        f"student.backbone={name}",
    ]
    found, plain = load(tmp_path, *overrides), load(tmp_path)
    assert (found.train.steps, found.train.lr, found.train.flip) == (steps, lr, flip)
    assert found.student.backbone == name
    back = found.model_copy(update={"train": plain.train, "student": plain.student})
    assert back == plain


def test_a_value_may_contain_an_equals_sign_and_be_any_toml(tmp_path: Path) -> None:
    config = load(
        tmp_path, "student.weights=a=b.pth", 'teacher.outputs=["patch", "embedding"]', "seed = 3"
    )
    assert config.student.weights == "a=b.pth"
    assert config.teacher.outputs == ("embedding", "patch")
    assert config.seed == 3


def test_dotted_paths_are_relative_to_the_file_or_the_current_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert load(tmp_path).dataset.root == tmp_path / "pictures"  # type: ignore[attr-defined]
    monkeypatch.chdir(tmp_path.parent)
    config = load(tmp_path, "dataset.root=./elsewhere", "workspace=../ws")
    assert config.dataset.root == tmp_path.parent / "elsewhere"  # type: ignore[attr-defined]
    assert config.workspace == tmp_path.parent.parent / "ws"


def test_a_missing_or_invalid_file_is_a_config_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no such file"):
        load_config(tmp_path / "none.toml")
    assert "not valid TOML" in message(tmp_path, text="name = ")
    (tmp_path / "latin.toml").write_bytes(b'name = "\xff"')
    with pytest.raises(ConfigError, match="not valid TOML"):
        load_config(tmp_path / "latin.toml")


def test_a_comparison_row_is_the_config_with_its_overrides(tmp_path: Path) -> None:
    config = load(tmp_path, 'compare.plain=["student.fusion=mean", "seed=5"]')
    row = row_config(config, "plain")
    assert (row.name, row.student.fusion, row.seed) == ("small-plain", "mean", 5)
    assert row.compare == {}
    assert row.dataset == config.dataset


def test_rows_are_the_main_run_and_the_comparisons(tmp_path: Path) -> None:
    config = load(tmp_path, 'compare={slow=["train.lr=1e-5"]}')
    assert {name: row.train.lr for name, row in rows(config).items()} == {
        MAIN_ROW: config.train.lr,
        "slow": 1e-5,
    }
