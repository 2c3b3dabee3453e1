"""Models whose instances take turns: one instance is in reserve, in whichever configuration the server reads."""

from __future__ import annotations

from pathlib import Path

import pytest
from deepfake_deploy.embedded.command import RATE_LIMIT_ARGUMENTS
from google.protobuf import text_format
from tritonclient.grpc.model_config_pb2 import ModelConfig

from tests.support.project import ROOT

CONFIGURATIONS = sorted((ROOT / "model_repository").glob("*/**/*.pbtxt"))


def turns() -> dict[str, int]:
    """Resource → how many instances may compute at a time."""
    given = [argument.partition("=") for argument in RATE_LIMIT_ARGUMENTS]
    named = [value.partition(":") for flag, _, value in given if flag == "--rate-limit-resource"]
    return {resource: int(count) for resource, _, count in named}


@pytest.mark.parametrize("path", CONFIGURATIONS, ids=lambda path: str(path.relative_to(ROOT / "model_repository")))
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
    configurations = [text_format.Parse(path.read_text(), ModelConfig()) for path in CONFIGURATIONS]
    groups = [group for configuration in configurations for group in configuration.instance_group]
    assert {resource.name for group in groups for resource in group.rate_limiter.resources} == set(turns())
