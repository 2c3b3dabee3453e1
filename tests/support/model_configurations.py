"""The models' configurations, as a server reads them."""

from __future__ import annotations

from google.protobuf import text_format
from tritonclient.grpc.model_config_pb2 import ModelConfig

from tests.support.project import ROOT

MODELS = sorted(path.parent.name for path in (ROOT / "model_repository").glob("*/config.pbtxt"))


def configuration(model: str, *, cpu: bool) -> ModelConfig:
    """Of a model in this repository; `cpu` stands for `--model-config-name=cpu`."""
    folder = ROOT / "model_repository" / model
    named = folder / "configs" / "cpu.pbtxt"
    path = named if cpu and named.is_file() else folder / "config.pbtxt"
    return text_format.Parse(path.read_text(), ModelConfig())


def instances(config: ModelConfig) -> int:
    return sum(group.count for group in config.instance_group)
