"""TOML as editors save it, and paths from the home folder."""

from __future__ import annotations

import codecs
from pathlib import Path

import pytest

from pipeline.config.load import load_config
from pipeline.config.toml_text import expand_home, read_toml, resolve_paths
from pipeline.errors import ConfigError

TEXT = """name = "t"
workspace = "~/ws"
dataset = { adapter = "folder", root = "~/tiles", classes = ["Straße", "~"], ignore_ids = [] }
modalities = { rgb = {} }
"""


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.mark.parametrize("mark", [b"", codecs.BOM_UTF8])
@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_a_mark_and_line_ends_change_nothing(tmp_path: Path, mark: bytes, newline: str) -> None:
    path = tmp_path / "c.toml"
    path.write_bytes(mark + TEXT.replace("\n", newline).encode())
    assert read_toml(path)["dataset"]["classes"] == ["Straße", "~"]


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (TEXT.encode("utf-16"), "saved as UTF-16.*Save it as UTF-8"),
        (TEXT.encode("latin-1"), "line 3 is not UTF-8 text. Save the file as UTF-8"),
        (b"name = ", "not valid TOML"),
    ],
)
def test_what_is_no_toml_in_utf8_says_what_to_do(tmp_path: Path, data: bytes, said: str) -> None:
    path = tmp_path / "c.toml"
    path.write_bytes(data)
    with pytest.raises(ConfigError, match=said):
        read_toml(path)


def test_a_missing_file_and_a_folder(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no such file"):
        read_toml(tmp_path / "none.toml")
    with pytest.raises(ConfigError, match="a folder; expected a TOML file"):
        read_toml(tmp_path)


def test_home_in_a_file_and_in_an_override(tmp_path: Path, home: Path) -> None:
    path = tmp_path / "c.toml"
    path.write_text(TEXT, encoding="utf-8")
    config = load_config(path)
    assert config.workspace == home / "ws"
    assert config.dataset.root == home / "tiles"  # type: ignore[attr-defined]
    assert config.dataset.classes == ("Straße", "~")  # type: ignore[attr-defined]
    assert load_config(path, ["workspace=~/other"]).workspace == home / "other"
    assert load_config(path, ["workspace=~"]).workspace == home
    home.mkdir()
    (home / "c.toml").write_text(TEXT, encoding="utf-8")
    assert load_config("~/c.toml") == config


def test_paths_in_tables_and_lists(tmp_path: Path, home: Path) -> None:
    value = {"a": "~/x", "b": ["~/y", "~", "./z", 3], "c": {"d": "../w"}, "e": "~x", "f": "a~/b"}
    assert resolve_paths(value, tmp_path / "in") == {
        "a": str(home / "x"),
        "b": [str(home / "y"), "~", str(tmp_path / "in/z"), 3],
        "c": {"d": str(tmp_path / "w")},
        "e": "~x",
        "f": "a~/b",
    }


@pytest.mark.parametrize("text", ["~nobody-of-that-name/x", "$HOME/ws", "${HOME}/ws", "%HOME%\\ws"])
def test_what_would_make_a_folder_of_that_name_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="Write"):
        expand_home(text)
