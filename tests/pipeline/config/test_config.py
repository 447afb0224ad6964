"""The configuration: round trips, overrides, and errors that name field and allowed values."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from pipeline.config.config import Config, dump_config, load_config
from pipeline.config.data import ModalityConfig, StoreConfig, TeacherConfig
from pipeline.config.student import LscdConfig, StudentConfig, TrainConfig
from pipeline.datasets.folder import FolderOptions
from pipeline.errors import ConfigError
from pipeline.modalities import KINDS

BASE = """
name = "small"
[dataset]
adapter = "folder"
root = "./pictures"
classes = ["soil", "crop"]
[modalities.rgb]
[modalities.ir]
kind = "nir"
"""

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


def write(folder: Path, text: str = BASE) -> Path:
    path = folder / "small.toml"
    path.write_text(text)
    return path


def load(folder: Path, *overrides: str, text: str = BASE) -> Config:
    return load_config(write(folder, text), overrides)


def message(folder: Path, *overrides: str, text: str = BASE) -> str:
    with pytest.raises(ConfigError) as error:
        load(folder, *overrides, text=text)
    return str(error.value)


@given(config=CONFIGS)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_dumped_config_loads_as_the_same(tmp_path: Path, config: Config) -> None:
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


@pytest.mark.parametrize(
    ("override", "parts"),
    [
        ("train.stepz=3", ["train.stepz: no such field; did you mean steps?"]),
        ("traim.steps=3", ["traim: no such field; did you mean train?"]),
        (
            "train.xyzzy=3",
            ["train.xyzzy: no such field; expected one of", "batch_size, blur, checkpoint"],
        ),
        ("train.steps=0", ["train.steps", "greater than 0", "found 0"]),
        ("train.steps=many", ["train.steps", "valid integer", "found 'many'"]),
        ("teacher.dtype=float64", ["teacher.dtype", "'float32', 'bfloat16' or 'float16'"]),
        ("teacher.outputs=['patch']", ["teacher.outputs", '["embedding", "patch"]']),
        ("dataset.adapter=zip", ["adapter = 'zip'", "folder", "synthetic"]),
        ("dataset.rooot=x", ["dataset", "rooot: no such field"]),
        ("dataset.classes=['a','a']", ["dataset", "'a' is listed twice"]),
        ("modalities.rgb.kind=radar", ["modalities.rgb.kind", "unknown kind 'radar'", "thermal"]),
        ("modalities.rgb.tower=sonar", ["modalities.rgb.tower", "'image'", "'thermal'"]),
        ("modalities.label.kind=rgb", ["modalities.label", "other than label"]),
        ("student.lscd.dense=1.0", ["student.lscd.dense", "teacher.outputs"]),
        ("student.lscd.language=0.1", ["student.lscd.language: no such field; expected", "intra"]),
        ("student.lscd={prompts='one_hot', dense=1}", ["student.lscd", "one_hot", "dense to 0"]),
        ("compare.x=['teacher.name=a']", ["compare.x", "student.*, train.*, seed or preset"]),
        ("name=a b", ["name", "pattern"]),
        ("train.steps", ["--set train.steps: expected FIELD=VALUE"]),
        ("name.x=3", ["'name' is a value, not a table"]),
    ],
)
def test_an_error_names_the_field_and_what_is_allowed(
    tmp_path: Path, override: str, parts: list[str]
) -> None:
    found = message(tmp_path, override)
    for part in parts:
        assert part in found


def test_a_missing_field_is_named(tmp_path: Path) -> None:
    assert "dataset: missing" in message(tmp_path, text='name = "x"\n[modalities.rgb]\n')
    assert "root: missing" in message(tmp_path, text=BASE.replace('root = "./pictures"', ""))


def test_a_file_that_is_not_there_or_not_toml(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no such file"):
        load_config(tmp_path / "none.toml")
    assert "not valid TOML" in message(tmp_path, text="name = ")
    (tmp_path / "latin.toml").write_bytes(b'name = "\xff"')
    with pytest.raises(ConfigError, match="not valid TOML"):
        load_config(tmp_path / "latin.toml")


def test_specs_resolve_kind_tower_and_range(tmp_path: Path) -> None:
    config = load(tmp_path, "modalities.ir.tower=thermal", "modalities.ir.max_value=100.0")
    specs = config.specs()
    assert list(specs) == ["rgb", "ir"]
    assert specs["rgb"] == KINDS["rgb"]
    assert (specs["ir"].kind, specs["ir"].tower, specs["ir"].max_value) == ("nir", "thermal", 100.0)


def test_a_comparison_row_is_the_config_with_its_overrides(tmp_path: Path) -> None:
    config = load(tmp_path, 'compare.plain=["student.fusion=mean", "seed=5"]')
    row = config.row("plain")
    assert (row.name, row.student.fusion, row.seed) == ("small-plain", "mean", 5)
    assert row.compare == {}
    assert row.dataset == config.dataset


def test_configs_are_immutable(tmp_path: Path) -> None:
    config = load(tmp_path)
    with pytest.raises(ValidationError, match="frozen"):
        config.seed = 4  # type: ignore[misc]


def test_lscd_is_active_if_any_term_has_weight() -> None:
    off = LscdConfig(inter=0.0, intra=0.0, dense=0.0)
    assert not off.active
    assert off.model_copy(update={"dense": 0.1}).active


def test_pooled_distillation_of_crops_is_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"train\.crop_px.*lscd\.inter"):
        load(tmp_path, "train.crop_px=64", "student.lscd.inter=0.05")
    assert load(tmp_path, "train.crop_px=64", "student.lscd.inter=0").train.crop_px == 64
    with pytest.raises(ConfigError, match=r"train\.scale.*lscd\.inter"):
        load(tmp_path, "train.scale=[0.5, 2.0]", "student.lscd.inter=0.05")
    with pytest.raises(ConfigError, match=r"train\.scale.*teacher\.views"):
        load(tmp_path, "train.scale=[0.5, 2.0]", "teacher.views=2", "train.crop_px=64")
    with pytest.raises(ConfigError, match=r"smallest, largest.*2\.0, 0\.5"):
        load(tmp_path, "train.scale=[2.0, 0.5]", "student.lscd.inter=0")
