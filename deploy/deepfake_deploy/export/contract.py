"""What a checkpoint must be so that the client, the labels and the model repository fit it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL.Image import Resampling
from transformers import AutoConfig, BaseImageProcessor, SiglipConfig

from .reporting import ExportError, one_line, silent_transformers

MODEL_NAME = "deepfake_vs_real"
ARCHITECTURE = "SiglipForImageClassification"
IMAGE_SIZE = 224
"""Height and width that the client sends and config.pbtxt declares."""
RESAMPLE = Resampling.BILINEAR
"""SigLIP 2's filter; SigLIP 1 has bicubic, and transformers' default for the class is bicubic too."""
MEAN = STD = (0.5, 0.5, 0.5)
RESCALE_FACTOR = 1 / 255


@dataclass(frozen=True)
class Preprocessing:
    """The numbers of a checkpoint's image processor; `mean` and `std` are per RGB channel, after rescaling to 0…1."""

    image_size: int
    resample: str
    rescale_factor: float
    mean: tuple[float, float, float]
    std: tuple[float, float, float]


def read_labels(repository: Path) -> list[str]:
    """Labels of the model repository's `labels.txt`, in class order."""
    path = repository / MODEL_NAME / "labels.txt"
    try:
        return path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "not UTF-8"
        raise ExportError(
            f"{path}: {reason}; --repository must name a folder like this project's model_repository"
        ) from None


def check_configuration(folder: Path, labels: list[str]) -> None:
    """Refuse a config.json of another architecture, head, image size or other labels, before any weight is read."""
    if (adapter := folder / "adapter_config.json").is_file():
        raise ExportError(f"{adapter}: an adapter is not part of the export; merge it into the model, and save that")
    path = folder / "config.json"
    if not path.is_file():
        raise ExportError(f"{path}: no such file; a checkpoint of transformers has it")
    try:
        with silent_transformers():
            config: Any = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        objection = next(_objections(config, labels), None)
    except Exception as error:  # a configuration can be wrong in as many ways as transformers has lines
        raise ExportError(
            f"{path}: transformers cannot read it: {one_line(error)}; fetch or save the checkpoint again"
        ) from None
    if objection:
        raise ExportError(f"{path}: {objection}")


def _objections(config: Any, labels: list[str]) -> Iterator[str]:
    """In what a configuration differs from what is served, each with the way out."""
    architectures = list(config.architectures or [])
    if not isinstance(config, SiglipConfig) or ARCHITECTURE not in architectures:
        kind = ", ".join(map(str, architectures)) or f"model_type {config.model_type}"
        yield f"{kind} is not a SigLIP image classifier ({ARCHITECTURE} expected)"
    softmax = "the served model gives the softmax of one logit for each label"
    if config.problem_type not in (None, "single_label_classification"):
        yield f"its problem_type is {config.problem_type}; {softmax}"
    if config.num_labels < 2:
        yield f"its num_labels is {config.num_labels}; {softmax}"
    if (function := getattr(config, "function_to_apply", None)) not in (None, "default", "softmax"):
        yield f"its function_to_apply is {function}; {softmax}"
    if getattr(config, "auto_map", None):
        yield "its auto_map names code of its own, which is not run"
    numbers = sorted(config.id2label)
    if (found := [str(config.id2label[number]) for number in numbers]) != labels:
        yield (
            f"its labels are {_quoted(found)}, those of the served model (labels.txt) are {_quoted(labels)}, in this "
            "order; name a checkpoint with these labels, or change labels.txt and whoever relies on it"
        )
    inverse = {str(label): str(number) for label, number in (config.label2id or {}).items()}
    contradicted = [label for index, label in enumerate(labels) if inverse.get(label, str(index)) != str(index)]
    if contradicted or numbers != list(range(len(labels))):
        both = f"its id2label {config.id2label} and label2id {config.label2id}"
        yield f"{both} do not number the labels alike from 0; correct the wrong one"
    if config.vision_config.image_size != IMAGE_SIZE:
        yield f"its image size is {config.vision_config.image_size}, the contract's is {IMAGE_SIZE}"
    if getattr(config, "quantization_config", None):
        yield "its weights are quantised; export the checkpoint they came from"


def check_preprocessing(processor: BaseImageProcessor, name: str) -> Preprocessing:
    """The image processor's numbers, refused where they differ from what the client and the graph do.

    `name` is the checkpoint's, for the error.
    """
    expected = {
        "image_processor_type": "SiglipImageProcessor",
        "size": {"height": IMAGE_SIZE, "width": IMAGE_SIZE},
        "resample": int(RESAMPLE),
        "rescale_factor": RESCALE_FACTOR,
        "image_mean": list(MEAN),
        "image_std": list(STD),
        "do_resize": True,
        "do_rescale": True,
        "do_normalize": True,
        "do_center_crop": False,
        "do_pad": False,
        "auto_map": False,  # code of its own, which is not run
    }
    config = json.loads(processor.to_json_string())
    found = {key: config.get(key) or False for key in expected}
    differences = [
        f"{key} is {_shown(key, found[key])}, {_shown(key, wanted)} expected"
        for key, wanted in expected.items()
        if found[key] != wanted
    ]
    if differences:
        raise ExportError(
            f"{name}: its image processor does not do what the client does: {'; '.join(differences)}; export a checkpoint that "
            "was fine-tuned with this preprocessing"
        )
    return Preprocessing(IMAGE_SIZE, RESAMPLE.name.lower(), RESCALE_FACTOR, MEAN, STD)


def _quoted(labels: list[str]) -> str:
    return ", ".join(f"«{label}»" for label in labels)


def _shown(key: str, value: Any) -> str:
    if key == "resample" and isinstance(value, int) and value in set(Resampling):
        return f"{value} ({Resampling(value).name.lower()})"
    return repr(value)
