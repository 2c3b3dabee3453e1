"""What the server said, beside what the model card's own code says of the same files.

The card runs `AutoImageProcessor`, `SiglipForImageClassification` and softmax on an array from Gradio's image input.
Gradio turns photos upright by their EXIF orientation first (`gradio.image_utils.preprocess_image`), so what the card
classifies is what `transformers.image_utils.load_image` gives.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import torch
import transformers
from deepfake_client._errors import one_line
from PIL import Image
from transformers import BaseImageProcessor, SiglipForImageClassification
from transformers.image_utils import load_image

from . import InputError
from .measures import proportion
from .report import Part, named, shown
from .run import Prediction, ServedModel

#: Probabilities of one image, in the order of the labels.
Scores = tuple[float, ...]


@dataclass(frozen=True)
class Reference:
    """A checkpoint in transformers, in fp32 on the CPU; `model` and `processor` are as the card loads them."""

    model_id: str
    revision: str | None
    weights_sha256: Mapping[str, str]
    model: SiglipForImageClassification
    processor: BaseImageProcessor

    def probabilities(self, path: Path) -> Scores:
        """Softmax of the logits for one image file, in the order of the classes."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what Pillow finds odd about a file has nothing to do with its scores
            with Image.open(path) as file:
                image = load_image(file)
        with torch.inference_mode():
            logits = self.model(**self.processor(images=image, return_tensors="pt")).logits
            return tuple(torch.softmax(logits, dim=1)[0].tolist())


def reference_of(model: ServedModel) -> tuple[str, str | None]:
    """Name and revision of the model that the served weights were exported from, as the provenance has them."""
    provenance = model.provenance
    if provenance is None:
        raise InputError("the server does not say which weights it serves; name them with --reference-model")
    if provenance.stand_in or provenance.revision is not None:
        return provenance.model_id, provenance.revision
    raise InputError(
        f"the served model was exported from a folder, {provenance.model_id}, and a server's folders are not looked "
        "for here; name it, or a copy, with --reference-model"
    )


class Comparison(NamedTuple):
    """What the server said beside what the reference says.

    Attributes:
        differences: of the probabilities of each image; of its labels counts the one that differs most.
        changes: file, scores of the server and of the reference, for each image with another label.
        unread: (file, error) of images that the server classified and transformers could not read.
    """

    differences: list[float]
    changes: list[tuple[str, Scores, Scores]]
    unread: list[tuple[str, str]]


def compare(
    predictions: Sequence[Prediction],
    folder: Path,
    probabilities: Callable[[Path], Scores],
    advance: Callable[[], None] = lambda: None,
) -> Comparison:
    """Run the images in `folder` that have scores through `Reference.probabilities`, one after the other."""
    found = Comparison([], [], [])
    for each in predictions:
        if each.scores is not None:
            try:
                expected = probabilities(folder / each.file)
                if not all(map(math.isfinite, expected)):
                    raise ValueError("its probabilities are not finite")
            except Exception as error:  # Pillow raises as many kinds as it has decoders
                found.unread.append((each.file, " ".join(str(error).split()) or type(error).__name__))
            else:
                found.differences.append(max(abs(a - b) for a, b in zip(each.scores, expected, strict=True)))
                if each.scores.index(max(each.scores)) != expected.index(max(expected)):
                    found.changes.append((each.file, each.scores, expected))
        advance()
    return found


def reference_part(model: ServedModel, reference: Reference, comparison: Comparison) -> Part:
    """The comparison for the report."""
    provenance, (differences, changes, unread) = model.provenance, comparison
    images, processor = len(differences), type(reference.processor).__name__
    largest, mean = max(differences, default=0.0), sum(differences) / max(images, 1)
    share = proportion(len(changes), images) if images else None
    exported = None if provenance is None else provenance.document.get("weights_sha256")
    same = None  # the provenance does not say
    if isinstance(exported, Mapping):
        same = set(exported.values()) == set(reference.weights_sha256.values())
    figures = {
        "model_id": reference.model_id,
        "revision": reference.revision,
        "weights_sha256": reference.weights_sha256,
        "same_weights": same,
        "image_processor": processor,
        "transformers_version": transformers.__version__,
        "torch_version": torch.__version__,
        "precision": "fp32",
        "server_precision": None if provenance is None else provenance.precision,
        "images": images,
        "max_probability_difference": largest,
        "mean_probability_difference": mean,
        "labels_changed": {
            "count": len(changes),
            "share": share,
            "files": [
                {"file": file, "server": model.by_label(ours), "reference": model.by_label(theirs)}
                for file, ours, theirs in changes
            ],
        },
        "unread": named(unread),
    }

    def verdict(scores: Scores) -> str:
        return f"{model.labels[scores.index(max(scores))]} {max(scores):.4f}"

    name = " at ".join(filter(None, [reference.model_id, reference.revision]))
    files = [
        f"{one_line(file, 200)}: server {verdict(ours)}, transformers {verdict(theirs)}"
        for file, ours, theirs in changes
    ]
    lines = [
        f"Reference: {name} in transformers {transformers.__version__} ({processor}, fp32, photos turned upright); "
        f"the server runs {provenance.precision if provenance else 'in unknown precision'}",
        f"{images} images, max |Δprobability| {largest:.1e}, mean {mean:.1e}",
        f"Labels changed: {len(changes)} of {images}, {share or '-'}",
        *shown(files, "report.json"),
    ]
    if not same:
        may = "has" if same is False else "may have"
        lines.insert(1, f"The reference {may} other weights than those that the served model was exported from.")
    if unread:
        lines.append(f"Not read by transformers, and not compared: {len(unread)}, see report.json")
    return Part("reference", figures, "\n".join(lines))
