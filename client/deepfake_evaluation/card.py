"""An image through transformers as the model card does it: `AutoImageProcessor`, `SiglipForImageClassification`, softmax.

The card takes `Image.fromarray(image).convert("RGB")` of an array from Gradio's image input. Gradio turns photos upright
by their EXIF orientation before they become arrays (`gradio.image_utils.preprocess_image`), so what the card classifies
is what `transformers.image_utils.load_image` gives, and that is called here.
"""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import transformers
from deepfake_deploy.export import ExportError, Progress
from deepfake_deploy.export.checkpoint import (
    Checkpoint,
    load_model,
    load_processor,
    open_checkpoint,
    sha256_of,
    weight_files,
)
from PIL import Image
from transformers import BaseImageProcessor, SiglipForImageClassification
from transformers.image_utils import load_image


class Reference:
    """A checkpoint in transformers, in fp32 on the CPU; made by `open_reference`.

    Attributes:
        model_id, revision: as `open_checkpoint` found it.
        weights_sha256: of its safetensors, by name.
        processor: class of its image processor; transformers takes the one of torchvision where that is installed, and
            its resize differs a little.
        transformers_version, torch_version: what it runs with.
    """

    def __init__(
        self,
        checkpoint: Checkpoint,
        weights_sha256: Mapping[str, str],
        model: SiglipForImageClassification,
        processor: BaseImageProcessor,
    ) -> None:
        self.model_id, self.revision, self.weights_sha256 = checkpoint.model_id, checkpoint.revision, weights_sha256
        self.processor = type(processor).__name__
        self.transformers_version, self.torch_version = transformers.__version__, torch.__version__
        self._model, self._processor = model, processor

    def probabilities(self, path: Path) -> tuple[float, ...]:
        """Softmax of the logits for one image file, in the order of the classes.

        Raises:
            OSError, ValueError, …: Pillow or transformers cannot read the file.
        """
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what Pillow finds odd about a file has nothing to do with its scores
            with Image.open(path) as file:
                image = load_image(file)
        with torch.inference_mode():
            logits = self._model(**self._processor(images=image, return_tensors="pt")).logits
            return tuple(torch.softmax(logits, dim=1)[0].tolist())


@contextlib.contextmanager
def open_reference(model: str, revision: str | None, labels: Sequence[str], progress: Progress) -> Iterator[Reference]:
    """The reference for the model named by a local folder, a Hub id or "stand-in".

    Args:
        model, revision: as for the export.
        labels: of the served model, which it must have too, in their order.
        progress: told of each step.

    Raises:
        ExportError: it cannot be had or loaded, or has other labels.
    """
    with open_checkpoint(model, revision, list(labels), progress) as checkpoint:
        progress.step("Loading the model into transformers")
        digests = {path.name: sha256_of(path) for path in weight_files(checkpoint)}
        classifier = load_model(checkpoint)
        names: dict[Any, str] = dict(classifier.config.id2label or {})
        found = [names[index] for index in sorted(names)]
        if found != list(labels):
            quoted = [", ".join(f"«{label}»" for label in each) for each in (found, labels)]
            raise ExportError(f"{model}: its labels are {quoted[0]}, those of the server {quoted[1]}, in this order")
        yield Reference(checkpoint, digests, classifier, load_processor(checkpoint, backend=None))
