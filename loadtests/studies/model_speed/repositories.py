"""Model repositories for one measurement: the project's, with another model.pt and other numbers in its configuration."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from pathlib import Path

from deepfake_deploy.export import FIRST_VERSION, MODEL_FILE, MODEL_NAME
from google.protobuf import text_format
from tritonclient.grpc.model_config_pb2 import ModelConfig

_ENSEMBLE = ("deepfake_vs_real_image", "image_decoder")


@dataclass(frozen=True, slots=True)
class Settings:
    """Numbers of the model's configuration; None leaves what is shipped."""

    max_batch_size: int | None = None
    max_queue_delay_microseconds: int | None = None
    instances: int | None = None
    at_once: bool = False
    """All instances compute at the same time, in place of taking turns."""
    threads: int | None = None
    """INTRA_OP_THREAD_COUNT."""
    decoder_queue_delay_microseconds: int | None = None


def write_repository(source: Path, target: Path, model: Path, settings: Settings, *, gpu: bool) -> Path:
    """Copies `source` without its weights, links `model` into it, and changes the configuration that will be read.

    The ensemble and its decoder are left out where the batch size is not what theirs is.
    """

    def left_out(folder: str, names: list[str]) -> list[str]:
        if Path(folder) == source:
            return [name for name in names if settings.max_batch_size and name in _ENSEMBLE]
        versions = Path(folder).name == MODEL_NAME
        return [name for name in names if versions and name.lstrip(".")[:1].isdigit()]

    shutil.copytree(source, target, ignore=left_out)
    version = target / MODEL_NAME / str(FIRST_VERSION)
    version.mkdir()
    os.link(model, version / MODEL_FILE)
    path = configuration_path(target, gpu=gpu)
    config = read_configuration(path)
    _change(config, settings)
    path.write_text(text_format.MessageToString(config), encoding="utf-8")
    if settings.decoder_queue_delay_microseconds is not None:
        path = configuration_path(target, gpu=gpu, model="image_decoder")
        decoder = read_configuration(path)
        decoder.dynamic_batching.max_queue_delay_microseconds = settings.decoder_queue_delay_microseconds
        path.write_text(text_format.MessageToString(decoder), encoding="utf-8")
    return target


def configuration_path(repository: Path, *, gpu: bool, model: str = MODEL_NAME) -> Path:
    """What the server reads with a GPU, and without."""
    folder = repository / model
    return folder / "config.pbtxt" if gpu else folder / "configs" / "cpu.pbtxt"


def read_configuration(path: Path) -> ModelConfig:
    """A parsed config.pbtxt."""
    return text_format.Parse(path.read_text(encoding="utf-8"), ModelConfig())


def _change(config: ModelConfig, settings: Settings) -> None:
    if settings.max_batch_size is not None:
        config.max_batch_size = settings.max_batch_size
        warm = [entry for entry in config.model_warmup if entry.batch_size < settings.max_batch_size]
        full = type(config.model_warmup[0])()
        full.CopyFrom(config.model_warmup[0])
        full.name, full.batch_size = f"batch {settings.max_batch_size}", settings.max_batch_size
        del config.model_warmup[:]
        config.model_warmup.extend([*warm, full])
    if settings.max_queue_delay_microseconds is not None:
        config.dynamic_batching.max_queue_delay_microseconds = settings.max_queue_delay_microseconds
    if settings.instances is not None:
        config.instance_group[0].count = settings.instances
    if settings.at_once:
        config.instance_group[0].ClearField("rate_limiter")
    if settings.threads is not None:
        config.parameters["INTRA_OP_THREAD_COUNT"].string_value = str(settings.threads)
