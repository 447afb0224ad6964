"""The encoding process: real towers; killed it is replaced, damaged data are named, the rest is done."""

import os
import signal
from pathlib import Path

import pytest

from pipeline.config.config import Config
from pipeline.config.load import load_config
from pipeline.core.retryable import TryAgain
from pipeline.shards.manifest import Manifest
from pipeline.shards.prepare import prepare
from pipeline.workspace import Workspace
from teacher.encoding.child_process import EncodingProcess, encode_units
from teacher.encoding.encoder import Encoder
from teacher.encoding.units import Unit, plan_towers, plan_units
from tests.flows.conftest import field

__all__ = ["field"]


def missing(config: Config) -> list[Unit]:
    workspace = Workspace.of(config)
    return plan_units(
        plan_towers(config, workspace), Manifest.load(workspace.dataset(config)).all_shards
    )


@pytest.fixture
def config(field: Path) -> Config:
    """Prepared, nothing encoded: three shards, one tower."""
    config = load_config(field)
    prepare(config, Workspace.of(config), progress=False)
    return config


@pytest.mark.proof
def test_ranges_go_through_one_process_that_is_replaced_when_killed(config: Config) -> None:
    units = missing(config)
    assert len(units) == 3
    lines: list[str] = []
    with EncodingProcess(config) as process:
        assert process.encode(units[:1], lines.append).done == 2
        first = process.pid
        assert process.encode(units[1:2], lines.append).done == 2
        assert process.pid == first
        assert first is not None
        os.kill(first, signal.SIGKILL)
        with pytest.raises(TryAgain, match="from 64 to 32"):
            process.encode(units[2:], lines.append)
        assert process.encode(units[2:], lines.append).done == 2
        assert process.pid != first
        last = process.pid
    assert missing(config) == []
    assert any("images" in line for line in lines)
    with pytest.raises(ProcessLookupError):
        os.kill(last, 0)


def test_a_damaged_shard_is_named_and_the_others_are_encoded(config: Config) -> None:
    units = missing(config)
    shard = Manifest.load(Workspace.of(config).dataset(config)).all_shards[0]
    data = bytearray(Path(str(shard.path)).read_bytes())
    data[700] ^= 1
    Path(str(shard.path)).chmod(0o644)
    Path(str(shard.path)).write_bytes(data)
    report = encode_units(config, Encoder("cpu"), units)
    assert [failure.unit for failure in report.failed] == [str(units[0])]
    assert shard.path.name in report.failed[0].reason
    assert missing(config) == units[:1]
