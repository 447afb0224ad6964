"""Teachers by dotted path and entry point: what they become, and one line for every mistake."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline.core.fingerprint import fingerprint
from pipeline.errors import ConfigError
from teacher.custom_teacher import CustomTeacher
from teacher.families.language_bind import LanguageBind
from teacher.open import open_teacher
from teacher.own import GROUP, NamedTeacher, open_own

EXAMPLE = "examples.own_teacher:ColourHistogram"
MINE = """
from any2seg import CustomTeacher

NUMBER = 3

class Mine(CustomTeacher):
    input_px, embedding_dim = 32, 5
    version = 1

    def identity(self):
        return {"version": self.version}

    def load(self, dtype, device):
        return lambda pixels: (pixels.mean((2, 3)) @ pixels.new_ones(3, 5), None)

class Other(Mine):
    pass

class NoIdentity(CustomTeacher):
    embedding_dim = 5
    def load(self, dtype, device): ...

class NoTower:
    family, text = "none", None

class NeedsArguments(Mine):
    def __init__(self, path): ...

class NotJson(Mine):
    def identity(self):
        return {"path": object()}

class NoWidth(CustomTeacher):
    def identity(self): return {}
    def load(self, dtype, device): ...

def configured():
    teacher = Mine()
    teacher.version = 7
    return teacher
"""
Write = Callable[[str, str], None]


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Write:
    """`write(name, text)`: a module on the path that exists for this test."""
    monkeypatch.syspath_prepend(str(tmp_path))

    def module(name: str, text: str) -> None:
        monkeypatch.delitem(__import__("sys").modules, name, raising=False)
        (tmp_path / f"{name}.py").write_text(text)

    return module


@pytest.fixture
def mine(write: Write) -> str:
    write("my_teachers", MINE)
    return "my_teachers"


def opened(name: str) -> NamedTeacher:
    teacher = open_teacher(name)
    assert isinstance(teacher, NamedTeacher)
    return teacher


def identity(name: str, cache: Path, dtype: str = "float32", **options: object) -> str:
    tower = opened(name).tower("image", **options)
    return fingerprint(tower.identity(compute_dtype=dtype, cache=cache))


def test_a_dotted_path_is_a_teacher(mine: str, tmp_path: Path) -> None:
    teacher = opened(f"{mine}:Mine")
    assert (teacher.towers, teacher.text) == (("image",), None)
    tower = teacher.tower("image", antialias=None)
    assert (tower.name, tower.input_px, tower.output_shapes()) == (
        "image",
        (32, 32),
        {"embedding": (5,)},
    )
    stated = tower.identity(compute_dtype="float32", cache=tmp_path)
    assert stated["own"] == "my_teachers:Mine"
    assert stated["identity"] == {"version": 1}


def test_path_class_identity_options_and_arithmetic_are_in_the_fingerprint(
    mine: str, tmp_path: Path
) -> None:
    first = identity(f"{mine}:Mine", tmp_path)
    assert first == identity(f"{mine}:Mine", tmp_path)
    others = [
        identity(f"{mine}:Other", tmp_path),
        identity(f"{mine}:configured", tmp_path),
        identity(f"{mine}:Mine", tmp_path, dtype="bfloat16"),
        identity(f"{mine}:Mine", tmp_path, antialias=True),
    ]
    assert len({first, *others}) == 5


def test_an_entry_point_names_the_same_teacher(mine: str, tmp_path: Path) -> None:
    info = tmp_path / "mine-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: mine\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[{GROUP}]\nmine = {mine}:Mine\n")
    assert identity("mine", tmp_path) == identity(f"{mine}:Mine", tmp_path)
    other = tmp_path / "other-1.0.dist-info"
    other.mkdir()
    (other / "METADATA").write_text("Metadata-Version: 2.1\nName: other\nVersion: 1.0\n")
    (other / "entry_points.txt").write_text(f"[{GROUP}]\nmine = {mine}:Other\n")
    with pytest.raises(ConfigError, match="several installed packages offer it"):
        open_own("mine")


@pytest.mark.parametrize("name", ["languagebind-tiny", "LanguageBind", "LanguageBind/X", "./a:b"])
def test_other_names_are_not_own_teachers(name: str) -> None:
    assert open_own(name) is None


def test_a_folder_goes_before_an_entry_point(
    mine: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    test_an_entry_point_names_the_same_teacher(mine, tmp_path)
    (tmp_path / "mine").mkdir()
    monkeypatch.chdir(tmp_path)
    assert isinstance(open_teacher("mine"), LanguageBind)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("no_such_module_at_all:X", ["cannot be imported", "ModuleNotFoundError", "PYTHONPATH"]),
        ("my_teachers:Mien", ["no Mien in my_teachers", "did you mean Mine?"]),
        ("my_teachers:NUMBER", ["expected a class or a function", "found int"]),
        ("my_teachers:NeedsArguments", ["without arguments", "path"]),
        ("my_teachers:NoIdentity", ["without arguments", "abstract", "identity"]),
        ("my_teachers:NoTower", ["(NoTower) has no towers, tower;", "teacher.contract.Teacher"]),
        ("my_teachers:Mine.version", ["found int"]),
        ("builtins:dict", ["(dict) has no family, towers, text, tower;"]),
    ],
)
@pytest.mark.usefixtures("mine")
def test_a_mistake_is_one_line_that_names_it(name: str, words: list[str]) -> None:
    with pytest.raises(ConfigError) as error:
        open_teacher(name)
    message = str(error.value)
    assert "\n" not in message
    assert message.startswith("teacher.name")
    for word in words:
        assert word in message


def test_a_module_that_fails_while_it_is_imported_is_named(write: Write) -> None:
    write("broken_teachers", "import math\nmath.no_such_function()\n")
    with pytest.raises(ConfigError, match=r"broken_teachers cannot be imported \(AttributeError"):
        open_own("broken_teachers:X")


def test_later_mistakes_are_named_too(mine: str, tmp_path: Path) -> None:
    tower = opened(f"{mine}:NotJson").tower("image")
    with pytest.raises(ConfigError, match="must be JSON-ready"):
        tower.identity(compute_dtype="float32", cache=tmp_path)
    with pytest.raises(ConfigError, match="no embedding_dim"):
        opened(f"{mine}:NoWidth").tower("image")
    with pytest.raises(ConfigError, match=r"teacher\.revision"):
        open_own(f"{mine}:Mine", "main")


def test_the_base_class_is_public() -> None:
    import any2seg

    assert any2seg.CustomTeacher is CustomTeacher
