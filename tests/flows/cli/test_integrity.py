"""The commands verify, repair, gc and audit: what they print, their exit codes, the exact remedy."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from flows.cli.main import app
from pipeline.config.config import Config
from pipeline.config.load import dump_config
from pipeline.shards.prepare import prepare
from pipeline.workspace import Workspace
from teacher.encoding.precompute import precompute
from tests.teacher.conftest import make_config, write_pictures, write_source


@pytest.fixture(scope="module")
def config_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished workspace's config; tests fix what they break."""
    root = tmp_path_factory.mktemp("integrity")
    write_pictures(root / "pictures")
    config = make_config(root, write_source(root / "towers"))
    prepare(config, Workspace.of(config), progress=False)
    precompute(config, Workspace.of(config), progress=False)
    path = root / "my config.toml"
    path.write_text(dump_config(config))
    return path


def call(*arguments: str) -> tuple[int, str]:
    result = CliRunner().invoke(app, list(arguments), env={"COLUMNS": "200"})
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, result.output


def loaded(path: Path) -> Config:
    from pipeline.config.load import load_config

    return load_config(path)


def test_findings_name_the_command_that_fixes_them(config_file: Path, tmp_path: Path) -> None:
    code, text = call("verify", str(config_file))
    assert (code, "0 findings" in text) == (0, True)
    config = loaded(config_file)
    tar = Path(str(Workspace.of(config).dataset(config))) / "shards" / "train" / "train-000001.tar"
    data = bytearray(tar.read_bytes())
    data[700] ^= 1
    tar.unlink()
    tar.write_bytes(data)
    assert call("verify", str(config_file))[0] == 0
    code, text = call("verify", str(config_file), "--deep", "--json", str(tmp_path / "found.json"))
    assert code == 1
    assert f"{tar}: shard altered: expected sha256" in text
    assert f"remedy: any2seg repair '{config_file}'" in text
    [finding] = json.loads((tmp_path / "found.json").read_text())["findings"]
    assert (finding["kind"], finding["shard"]) == ("shard_altered", "train-000001")
    code, text = call("repair", str(config_file), "--dry-run")
    assert (code, "would fix" in text, tar.read_bytes() == data) == (0, True, True)
    code, text = call("repair", str(config_file))
    assert (code, "1 fixed, 0 left." in text) == (0, True)
    assert call("verify", str(config_file), "--deep")[0] == 0


def test_audit_prints_the_drift(config_file: Path) -> None:
    code, text = call("audit", str(config_file), "--share", "0.5")
    assert code == 0
    assert "Tolerance 4.8e-07" in text
    code, text = call("audit", str(config_file), "--tolerance", "1e-12")
    assert code == 1
    assert ": rgb embedding: 1 - cosine" in text


def test_gc_lists_and_deletes_only_with_delete(config_file: Path) -> None:
    from pipeline.errors import ConfigError

    config = loaded(config_file)
    store = Workspace.of(config).prompts / "other-0123456789ab"
    store.mkdir()
    (store / "provenance.json").write_text("{}")
    code, text = call("gc", str(config_file))
    assert (code, "prompts/other-0123456789ab" in text, store.exists()) == (0, True, True)
    code, text = call("gc", str(Workspace.of(config).root), str(config_file), "--delete", "--runs")
    assert (code, "Deleted 1." in text, store.exists()) == (0, True, False)
    assert call("verify", str(config_file), "--deep")[0] == 0
    with pytest.raises(ConfigError, match="expected a workspace's folder"):
        call("gc", "nowhere")
