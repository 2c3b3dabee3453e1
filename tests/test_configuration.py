"""What configuration files keep to: few comments, and models whose instances take turns as the server is told."""

from __future__ import annotations

from pathlib import Path

import pytest
from deepfake_deploy.embedded.command import RATE_LIMIT_ARGUMENTS
from google.protobuf import text_format
from tritonclient.grpc.model_config_pb2 import ModelConfig

from tests.support.project import ROOT

MODELS = sorted((ROOT / "model_repository").glob("*/**/*.pbtxt"))
FILES = [*MODELS, *sorted((ROOT / "deploy").glob("**/*.yaml")), *sorted((ROOT / "deploy" / "docker").iterdir())]


def relative(path: Path) -> str:
    return str(path.relative_to(ROOT))


def test_configuration_is_no_place_for_essays() -> None:
    assert len(FILES) > 50
    for path in FILES:
        lines = [line.strip() for line in path.read_text().splitlines() if line.strip()]
        comments = [line for line in lines if line.startswith("#")]
        assert 3 * len(comments) <= len(lines), f"{relative(path)}: the reasons belong into the folder's README.md"


def turns() -> dict[str, int]:
    """Resource → how many instances may compute at a time."""
    given = [argument.partition("=") for argument in RATE_LIMIT_ARGUMENTS]
    named = [value.partition(":") for flag, _, value in given if flag == "--rate-limit-resource"]
    return {resource: int(count) for resource, _, count in named}


@pytest.mark.parametrize("path", MODELS, ids=relative)
def test_there_is_one_instance_more_than_turns_and_nobody_else_waits_for_them(path: Path) -> None:
    """Once one resource is named, Triton takes one that is not for none at all, and its model never computes."""
    configuration = text_format.Parse(path.read_text(), ModelConfig())
    for group in configuration.instance_group:
        if configuration.name != "deepfake_vs_real":
            assert not group.HasField("rate_limiter")
        for resource in group.rate_limiter.resources:
            assert resource.count == 1
            assert group.count == turns()[resource.name] + 1
            # How often others may have executed for each time that this one has, and still go first.
            assert group.rate_limiter.priority == 1_000_000


def test_every_resource_is_some_models() -> None:
    assert "--rate-limit=execution_count" in RATE_LIMIT_ARGUMENTS
    configurations = [text_format.Parse(path.read_text(), ModelConfig()) for path in MODELS]
    groups = [group for configuration in configurations for group in configuration.instance_group]
    assert {resource.name for group in groups for resource in group.rate_limiter.resources} == set(turns())
