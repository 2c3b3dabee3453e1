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
from typing import Any, NamedTuple

import torch
import transformers
from deepfake_client._errors import one_line
from PIL import Image
from transformers import BaseImageProcessor, SiglipForImageClassification
from transformers.image_utils import load_image

from . import InputError
from .measures import Interval, proportion
from .report import Part, named, shown
from .run import Prediction, ServedModel

#: Probabilities of one image, in the order of the labels.
Scores = tuple[float, ...]


@dataclass(frozen=True)
class Reference:
    """A checkpoint in transformers, in fp32 on the CPU.

    Attributes:
        model_id: Hub id, local folder as given, or "stand-in".
        revision: commit on the Hub; None for anything local.
        weights_sha256: of its safetensors, by name.
        model, processor: as the card loads them. With torchvision installed, transformers takes that one's processor,
            and its resize differs a little.
    """

    model_id: str
    revision: str | None
    weights_sha256: Mapping[str, str]
    model: SiglipForImageClassification
    processor: BaseImageProcessor

    def probabilities(self, path: Path) -> Scores:
        """Softmax of the logits for one image file, in the order of the classes.

        Raises:
            OSError, ValueError, …: Pillow or transformers cannot read the file.
        """
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what Pillow finds odd about a file has nothing to do with its scores
            with Image.open(path) as file:
                image = load_image(file)
        with torch.inference_mode():
            logits = self.model(**self.processor(images=image, return_tensors="pt")).logits
            return tuple(torch.softmax(logits, dim=1)[0].tolist())


def reference_of(model: ServedModel) -> tuple[str, str | None]:
    """Name and revision of the model that the served weights were exported from, as the provenance has them.

    Raises:
        InputError: the server does not say, or names a folder.
    """
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

    @property
    def farthest_from_half(self) -> float | None:
        """Of the labels that changed, the reference's score; near one half a small difference decides."""
        return max((abs(expected[0] - 0.5) for _, _, expected in self.changes), default=None)


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
    precision = None if model.provenance is None else model.provenance.precision
    same, processor = _same_weights(model, reference), type(reference.processor).__name__
    differences, changes, unread = comparison
    images = len(differences)
    share = proportion(len(changes), images) if images else None
    figures = {
        "model_id": reference.model_id,
        "revision": reference.revision,
        "weights_sha256": reference.weights_sha256,
        "same_weights": same,
        "image_processor": processor,
        "transformers_version": transformers.__version__,
        "torch_version": torch.__version__,
        "precision": "fp32",
        "server_precision": precision,
        "images": images,
        "max_probability_difference": max(differences, default=0.0),
        "mean_probability_difference": sum(differences) / images if images else 0.0,
        "labels_changed": {
            "count": len(changes),
            "share": share,
            "max_distance_from_half": comparison.farthest_from_half,
            "files": [
                {"file": file, "server": model.by_label(ours), "reference": model.by_label(theirs)}
                for file, ours, theirs in changes
            ],
        },
        "unread": named(unread),
    }
    name = " at ".join(filter(None, [reference.model_id, reference.revision]))
    lines = [
        f"Reference: {name} in transformers {transformers.__version__} ({processor}, fp32, photos "
        f"turned upright); the server runs {precision or 'in unknown precision'}"
    ]
    if same is not True:
        known = "has other weights than" if same is False else "may have other weights than"
        lines.append(f"The reference {known} those that the served model was exported from.")
    return Part("reference", figures, "\n".join([*lines, *_lines(model, comparison, share)]))


def _lines(model: ServedModel, comparison: Comparison, share: Interval | None) -> list[str]:
    differences, changes, unread = comparison
    if share is None:
        return ["No image was compared."]

    def verdict(scores: Scores) -> str:
        return f"{model.labels[scores.index(max(scores))]} {max(scores):.4f}"

    images, farthest = len(differences), comparison.farthest_from_half
    distance = "" if farthest is None else f"; at most {farthest:.4f} from one half in transformers"
    files = [
        f"{one_line(file, 200)}: server {verdict(ours)}, transformers {verdict(theirs)}"
        for file, ours, theirs in changes
    ]
    return [
        f"{images} images, max |Δprobability| {max(differences):.1e}, mean {sum(differences) / images:.1e}",
        f"Labels changed: {len(changes)} of {images}, {share}{distance}",
        *shown(files, "report.json"),
        *([f"Not read by transformers, and not compared: {len(unread)}, see report.json"] if unread else []),
    ]


def _same_weights(model: ServedModel, reference: Reference) -> bool | None:
    """Whether the served weights were exported from those of the reference; None where the provenance does not say."""
    exported: Any = None if model.provenance is None else model.provenance.document.get("weights_sha256")
    if not isinstance(exported, Mapping):
        return None
    return sorted(map(str, exported.values())) == sorted(reference.weights_sha256.values())
