"""What configuration files keep to: few comments, turns on CPUs alone, and decoders that share the CPUs."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest
from deepfake_deploy.embedded import EmbeddedTriton
from deepfake_deploy.embedded.command import RATE_LIMIT_ARGUMENTS, server_arguments
from deepfake_deploy.embedded.installation import find_installation
from google.protobuf.json_format import MessageToDict
from tritonclient.grpc.model_config_pb2 import ModelInstanceGroup

from tests.support.model_configurations import MODELS, configuration
from tests.support.project import ROOT

FILES = [
    *(ROOT / "model_repository").glob("*/**/*.pbtxt"),
    *(ROOT / "deploy").glob("**/*.yaml"),
    *(ROOT / "deploy" / "docker").iterdir(),
]

with_and_without_gpu = pytest.mark.parametrize("cpu", [False, True], ids=["GPU", "CPU"])


def test_configuration_is_no_place_for_essays() -> None:
    assert len(FILES) > 50
    for path in FILES:
        lines = [line.strip() for line in path.read_text().splitlines() if line.strip()]
        comments = [line for line in lines if line.startswith("#")]
        assert 3 * len(comments) <= len(lines), f"{path.relative_to(ROOT)}: the reasons belong into the README.md"


def turns() -> dict[str, int]:
    """Resource → how many instances may compute at a time."""
    given = [argument.partition("=") for argument in RATE_LIMIT_ARGUMENTS]
    named = [value.partition(":") for flag, _, value in given if flag == "--rate-limit-resource"]
    return {resource: int(count) for resource, _, count in named}


def test_on_a_cpu_the_classifier_has_one_instance_more_than_turns_and_nobody_else_waits_for_them() -> None:
    """Once one resource is named, Triton takes one that is not for none at all, and its model never computes."""
    (group,) = configuration("deepfake_vs_real", cpu=True).instance_group
    assert {resource.name: resource.count for resource in group.rate_limiter.resources} == dict.fromkeys(turns(), 1)
    assert group.count == sum(turns().values()) + 1
    # How often others may have executed for each time that this one has, and still go first.
    assert group.rate_limiter.priority == 1_000_000
    for model in set(MODELS) - {"deepfake_vs_real"}:
        assert not any(other.HasField("rate_limiter") for other in configuration(model, cpu=True).instance_group)


def test_on_a_gpu_two_instances_share_the_weights_and_nobody_takes_turns() -> None:
    config = configuration("deepfake_vs_real", cpu=False)
    (group,) = config.instance_group
    assert (group.count, group.kind) == (2, ModelInstanceGroup.KIND_GPU)
    assert config.parameters["ENABLE_WEIGHT_SHARING"].string_value == "true"
    groups = [group for model in MODELS for group in configuration(model, cpu=False).instance_group]
    assert not any(group.HasField("rate_limiter") for group in groups)


@with_and_without_gpu
def test_deepfake_serve_has_turns_on_a_cpu_alone(cpu: bool) -> None:
    repository, backends = Path("model_repository"), Path("backends")
    arguments = server_arguments(EmbeddedTriton(), find_installation(), repository, backends, "prefix", gpu=not cpu)
    assert [argument for argument in arguments if "rate-limit" in argument] == list(RATE_LIMIT_ARGUMENTS if cpu else ())
    assert RATE_LIMIT_ARGUMENTS[0] == "--rate-limit=execution_count"


@with_and_without_gpu
def test_the_decoder_decodes_exactly_unless_it_is_told_otherwise(cpu: bool) -> None:
    assert configuration("image_decoder", cpu=cpu).parameters["decoding"].string_value == "exact"


@with_and_without_gpu
def test_both_steps_take_as_many_images_at_once_as_the_ensemble(cpu: bool) -> None:
    """Triton refuses to load an ensemble that takes more than one of its steps."""
    decoder, classifier, ensemble = (
        configuration(model, cpu=cpu).max_batch_size
        for model in ("image_decoder", "deepfake_vs_real", "deepfake_vs_real_image")
    )
    assert ensemble == decoder <= classifier


@pytest.mark.parametrize(
    ("cpu", "processors", "threads"), [(False, 8, 2), (False, 4, 1), (False, 2, 1), (True, 2, 2), (True, 1, 1)]
)
def test_the_decoders_share_the_cpus(cpu: bool, processors: int, threads: int, decoder: ModuleType) -> None:
    config = MessageToDict(configuration("image_decoder", cpu=cpu), preserving_proto_field_name=True)
    assert decoder.threads_of_each(config["instance_group"], processors) == threads


@pytest.fixture
def decoder(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The model's module, which Triton loads where its own utilities can be imported."""
    monkeypatch.setitem(sys.modules, "triton_python_backend_utils", ModuleType("triton_python_backend_utils"))
    path = ROOT / "model_repository" / "image_decoder" / "1" / "model.py"
    spec = importlib.util.spec_from_file_location("image_decoder", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
