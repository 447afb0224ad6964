"""What a flow takes: described in the schema, and never a credential."""

import re

import pytest
from prefect import Flow

from flows import flows
from flows.flows import any2seg
from flows.parameters import COMMANDS, OVERRIDE, checked, command_line
from pipeline.errors import ConfigError

FLOWS = [item for item in vars(flows).values() if isinstance(item, Flow)]
SECRETS = (
    "workspace=s3://key:hunter22@bucket/x",
    "workspace=s3://bucket/x?X-Amz-Signature=hunter22",
    "workspace=https://host/x?a=1&token=hunter22",
    'workspace="s3://bucket"\n#://key:hunter22@x',
)


@pytest.mark.parametrize("flow", FLOWS, ids=lambda flow: str(flow.name))
def test_every_parameter_is_described_and_checked_in_the_schema(flow) -> None:
    schema = flow.parameters.model_dump()
    assert set(schema["required"]) == {"config_path"}
    for name, field in schema["properties"].items():
        assert len(field["description"]) > 20, name
    assert schema["properties"]["config_path"]["pattern"]
    assert OVERRIDE in str(schema["properties"]["overrides"]).replace("\\\\", "\\")


def test_every_flow_has_a_command() -> None:
    assert sorted(flow.name for flow in FLOWS) == sorted(COMMANDS)


@pytest.mark.parametrize("secret", SECRETS)
def test_an_override_with_a_credential_is_refused_and_not_repeated(secret: str) -> None:
    assert not re.match(OVERRIDE, secret)
    with pytest.raises(ConfigError, match="credentials") as caught:
        checked([secret])
    assert "hunter22" not in str(caught.value)


@pytest.mark.parametrize(
    "fine",
    [
        "train.steps=3",
        "workspace = s3://bucket/prefix",
        'descriptions={source="from_labels"}',
        "notify.block=slack-webhook/any2seg",
        "dataset.root=./a b",
    ],
)
def test_an_ordinary_override_passes(fine: str) -> None:
    assert checked([fine]) == [fine]


@pytest.mark.parametrize("wrong", ["steps", "=3", "train steps=3"])
def test_a_malformed_override_is_refused(wrong: str) -> None:
    with pytest.raises(ConfigError, match="FIELD=VALUE"):
        checked([wrong])


def test_a_command_line_can_be_pasted_into_a_shell() -> None:
    line = command_line("any2seg", "/my data/a.toml", ["name=a b"])
    assert line == "any2seg run '/my data/a.toml' --set 'name=a b'"


@pytest.mark.parametrize("path", ["s3://key:x@bucket/a.toml", "a.yaml"])
def test_a_config_path_is_a_local_toml_file(path: str) -> None:
    with pytest.raises(Exception, match="toml"):
        any2seg.validate_parameters({"config_path": path})
