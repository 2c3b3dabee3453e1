"""The checkpoint in transformers, as every server here uses it.

What to serve and where is in the environment, because some of the frameworks start processes of their own.
"""

from __future__ import annotations

import io
import os

import torch
from PIL import Image
from torch.ao.quantization import quantize_dynamic
from transformers import AutoImageProcessor, SiglipForImageClassification

HOST, PORT = "127.0.0.1", int(os.environ["PEER_PORT"])
#: For each matrix product: all cores, for each server.
THREADS = int(os.environ["PEER_THREADS"])
#: The batch size and the wait for more that Triton has on a CPU (configs/cpu.pbtxt).
MAX_BATCH_SIZE = 8
BATCH_WAIT_SECONDS = 0.01


class Classifier:
    """Images to scores, one batch at a time."""

    def __init__(self) -> None:
        torch.set_num_threads(THREADS)
        checkpoint, precision = os.environ["PEER_CHECKPOINT"], os.environ["PEER_PRECISION"]
        self._dtype = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(precision, torch.float32)
        self._processor = AutoImageProcessor.from_pretrained(checkpoint)
        self._model = SiglipForImageClassification.from_pretrained(checkpoint, dtype=self._dtype).eval()
        if precision == "int8":
            quantize_dynamic(self._model.vision_model.encoder, {torch.nn.Linear}, inplace=True)

    def pixels(self, image: Image.Image | bytes) -> torch.Tensor:
        """What the model takes for one image or file of one, (3, 224, 224), normalised."""
        opened = Image.open(io.BytesIO(image)) if isinstance(image, bytes) else image
        pixels: torch.Tensor = self._processor(images=opened.convert("RGB"), return_tensors="pt")["pixel_values"][0]
        return pixels

    def scores(self, pixels: list[torch.Tensor]) -> list[dict[str, float]]:
        """Probabilities by label for each image of a batch."""
        with torch.inference_mode():
            logits = self._model(pixel_values=torch.stack(pixels).to(self._dtype)).logits
            probabilities = torch.softmax(logits.float(), dim=1).tolist()
        labels = self._model.config.id2label
        return [{labels[index]: score for index, score in enumerate(each)} for each in probabilities]
