"""What a checkpoint must be so that the client, the labels and the model repository fit it."""

from __future__ import annotations

import json
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
    """Labels of the model repository's `labels.txt`, in class order.

    Raises:
        ExportError: the folder is not this project's model repository.
    """
    path = repository / MODEL_NAME / "labels.txt"
    try:
        return path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "not UTF-8"
        raise ExportError(
            f"{path}: {reason}; --repository must name a folder like this project's model_repository"
        ) from None


def check_configuration(folder: Path, labels: list[str]) -> None:
    """Refuse a config.json of another architecture, head, image size or other labels, before any weight is read.

    Raises:
        ExportError: naming what the checkpoint has and what is expected.
    """
    if (adapter := folder / "adapter_config.json").is_file():
        raise ExportError(f"{adapter}: an adapter is not part of the export; merge it into the model, and save that")
    path = folder / "config.json"
    if not path.is_file():
        raise ExportError(f"{path}: no such file; a checkpoint of transformers has it")
    try:
        with silent_transformers():
            config: Any = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        architectures = list(config.architectures or [])
        numbers = sorted(config.id2label)
        found_labels = [str(config.id2label[number]) for number in numbers]
        inverse = {str(label): str(number) for label, number in (config.label2id or {}).items()}
    except Exception as error:  # a configuration can be wrong in as many ways as transformers has lines
        raise ExportError(
            f"{path}: transformers cannot read it: {one_line(error)}; fetch or save the checkpoint again"
        ) from None
    if not isinstance(config, SiglipConfig) or ARCHITECTURE not in architectures:
        kind = ", ".join(map(str, architectures)) or f"model_type {config.model_type}"
        raise ExportError(f"{path}: {kind} is not a SigLIP image classifier ({ARCHITECTURE} expected)")
    if reason := _other_head(config):
        raise ExportError(f"{path}: {reason}; the served model gives the softmax of one logit for each label")
    if found_labels != labels:
        raise ExportError(
            f"{path}: its labels are {_quoted(found_labels)}, those of the served model (labels.txt) are "
            f"{_quoted(labels)}, in this order; name a checkpoint with these labels, or change labels.txt and whoever "
            "relies on it"
        )
    contradicted = [label for index, label in enumerate(labels) if inverse.get(label, str(index)) != str(index)]
    if contradicted or numbers != list(range(len(labels))):
        raise ExportError(
            f"{path}: its id2label {config.id2label} and label2id {config.label2id} do not number the labels alike from "
            "0; correct the wrong one"
        )
    vision: Any = config.vision_config
    if vision.image_size != IMAGE_SIZE:
        raise ExportError(f"{path}: its image size is {vision.image_size}, the contract's is {IMAGE_SIZE}")
    if getattr(config, "quantization_config", None):
        raise ExportError(f"{path}: its weights are quantised; export the checkpoint they came from")


def _other_head(config: Any) -> str | None:
    """What in a configuration asks for other scores than softmax, or for another model than transformers' own."""
    if config.problem_type not in (None, "single_label_classification"):
        return f"its problem_type is {config.problem_type}"
    if config.num_labels < 2:
        return f"its num_labels is {config.num_labels}"
    if (function := getattr(config, "function_to_apply", None)) not in (None, "default", "softmax"):
        return f"its function_to_apply is {function}"
    if getattr(config, "auto_map", None):
        return "its auto_map names code of its own, which is not run"
    return None


def check_preprocessing(processor: BaseImageProcessor, name: str) -> Preprocessing:
    """The image processor's numbers, refused where they differ from what the client and the graph do.

    `name` is the checkpoint's, for the error.

    Raises:
        ExportError: naming each number that differs.
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
