"""Checkpoint → checked TorchScript → model repository."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
import transformers

from .checkpoint import load_model, load_processor, open_checkpoint, sha256_of, weight_files
from .contract import check_configuration, check_preprocessing, read_labels
from .parity import Parity, measure_parity
from .reporting import ExportError, Progress
from .target import FIRST_VERSION, MODEL_FILE, ExportTarget
from .torchscript import (
    ClassifierGraph,
    Precision,
    best_precision,
    deserialise,
    int8_refusal,
    serialise,
    trace_and_freeze,
)


@dataclass(frozen=True)
class Export:
    """What was written."""

    path: Path
    size_bytes: int
    precision: Precision
    weights: str
    parity: Parity


def export_model(
    model: str,
    revision: str | None,
    precision: Precision | None,
    repository: Path,
    progress: Progress,
    version: int = FIRST_VERSION,
) -> Export:
    """Write `<repository>/deepfake_vs_real/<version>/model.pt` and `provenance.json`, or leave what was there.

    Args:
        model: Hub id, local folder, or "stand-in".
        revision: branch, tag or commit of a Hub id; None for its default branch.
        precision: None is `--precision auto`: what is fastest on this machine, int8 aside.
        repository: model repository with the labels that the checkpoint must have.
        progress: told of each step.
        version: of the model in the repository.

    Raises:
        ExportError: the checkpoint cannot be had, does not fit the contract, or is not equal to transformers; or the
            repository cannot be written.
    """
    chosen = precision or best_precision()
    if chosen is Precision.INT8 and (refusal := int8_refusal()):
        raise ExportError(refusal)
    labels = read_labels(repository)
    target = ExportTarget(repository, version)
    with target.open(), open_checkpoint(model, revision, labels, progress) as checkpoint:
        progress.step("Checking configuration and weights")
        check_configuration(checkpoint.folder, labels)
        processor = load_processor(checkpoint)
        preprocessing = check_preprocessing(processor, checkpoint.model_id)
        files = weight_files(checkpoint)
        progress.step("Loading the model")
        classifier = load_model(checkpoint)
        progress.step(f"Tracing in {chosen.value}")
        content = serialise(trace_and_freeze(ClassifierGraph(classifier, preprocessing, chosen)))
        progress.step(f"Comparing with transformers {transformers.__version__}")
        # fp16 is for GPUs, and there it is measured where it will run.
        device = torch.device("cuda" if chosen is Precision.FP16 and torch.cuda.is_available() else "cpu")
        served = deserialise(content, device)
        parity = measure_parity(served, classifier, processor, device, progress.advance)
        parity.require(chosen)
        progress.step(f"Writing {MODEL_FILE}")
        provenance = {
            "weights": checkpoint.weights,
            "model_id": checkpoint.model_id,
            "revision": checkpoint.revision,
            "weights_sha256": {path.name: sha256_of(path) for path in files},
            "model_pt_sha256": hashlib.sha256(content).hexdigest(),
            "precision": chosen.value,
            "torch_version": torch.__version__,
            "transformers_version": transformers.__version__,
            "labels": labels,
            "preprocessing": asdict(preprocessing),
            "parity": asdict(parity),
        }
        target.publish(content, json.dumps(provenance, indent=2, ensure_ascii=False).encode() + b"\n")
        return Export(target.folder / MODEL_FILE, len(content), chosen, checkpoint.weights, parity)
