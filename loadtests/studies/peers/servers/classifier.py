"""The checkpoint in transformers, as every server here but the card's own uses it.

What to serve and where is in the environment, because some of the frameworks start processes of their own.
"""

from __future__ import annotations

import io
import os
from typing import Any

import torch
from PIL import Image
from transformers import AutoImageProcessor, SiglipForImageClassification

HOST = "127.0.0.1"
#: The batch size and the wait for more that Triton has on a CPU (configs/cpu.pbtxt).
MAX_BATCH_SIZE = 8
BATCH_WAIT_SECONDS = 0.01


def port() -> int:
    return int(os.environ["PEER_PORT"])


def threads() -> int:
    """Threads for each matrix product: all cores, for each server."""
    return int(os.environ["PEER_THREADS"])


class Classifier:
    """Images to scores, one batch at a time."""

    def __init__(self) -> None:
        torch.set_num_threads(threads())
        folder = os.environ["PEER_CHECKPOINT"]
        self._dtype = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[
            os.environ["PEER_PRECISION"]
        ]
        self._processor = AutoImageProcessor.from_pretrained(folder)
        self._model = SiglipForImageClassification.from_pretrained(folder, dtype=self._dtype).eval()
        self._labels = self._model.config.id2label

    def pixels(self, image: Image.Image) -> torch.Tensor:
        """What the model takes for one image, (3, 224, 224), normalised."""
        found: torch.Tensor = self._processor(images=image.convert("RGB"), return_tensors="pt")["pixel_values"][0]
        return found

    def scores(self, pixels: list[torch.Tensor]) -> list[dict[str, float]]:
        """Probabilities by label for each image of a batch."""
        with torch.inference_mode():
            logits = self._model(pixel_values=torch.stack(pixels).to(self._dtype)).logits
            probabilities: Any = torch.softmax(logits.float(), dim=1).tolist()
        return [{self._labels[index]: score for index, score in enumerate(each)} for each in probabilities]


def read_image(content: bytes) -> Image.Image:
    """The image of a file's bytes; Pillow decodes it when it is first used."""
    return Image.open(io.BytesIO(content))
