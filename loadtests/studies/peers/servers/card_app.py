"""The card's `gr.Interface` with Gradio's queue: one image at a time, in fp32; called with `gradio_client`."""

from __future__ import annotations

import os
from typing import Any

import gradio as gr
import torch
from classifier import HOST, PORT, THREADS
from PIL import Image
from transformers import AutoImageProcessor, SiglipForImageClassification

torch.set_num_threads(THREADS)
_folder = os.environ["PEER_CHECKPOINT"]
_model = SiglipForImageClassification.from_pretrained(_folder)
_processor = AutoImageProcessor.from_pretrained(_folder)


def classify(image: Any) -> dict[str, float]:
    """Scores of an array of pixels, which is what Gradio's image input gives."""
    inputs = _processor(images=Image.fromarray(image).convert("RGB"), return_tensors="pt")
    with torch.no_grad():
        probabilities = torch.nn.functional.softmax(_model(**inputs).logits, dim=1).squeeze().tolist()
    return {_model.config.id2label[index]: round(score, 3) for index, score in enumerate(probabilities)}


if __name__ == "__main__":
    gr.Interface(
        fn=classify,
        inputs=gr.Image(type="numpy"),
        outputs=gr.Label(num_top_classes=2),
        api_name="classify",
    ).launch(server_name=HOST, server_port=PORT, quiet=True)
