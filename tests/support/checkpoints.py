"""Small checkpoints of the real architecture, made on the spot."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import torch
from deepfake_deploy.export.reporting import silent_transformers
from transformers import SiglipConfig, SiglipForImageClassification
from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil

LABELS = ["Deepfake", "Real one"]


def make_checkpoint(
    folder: Path,
    *,
    labels: list[str] = LABELS,
    image_size: int = 224,
    processor: dict[str, Any] | None = None,
    seed: int = 1,
) -> Path:
    """Write a checkpoint with hidden size 64 and two layers, whose verdicts differ from image to image.

    `processor` overrides numbers of the image processor.
    """
    with silent_transformers(), torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.manual_seed(seed)
        config = SiglipConfig(
            vision_config={
                "hidden_size": 64,
                "intermediate_size": 128,
                "num_hidden_layers": 2,
                "num_attention_heads": 4,
                "image_size": image_size,
            },
            id2label=dict(enumerate(labels)),
            label2id={label: index for index, label in enumerate(labels)},
        )
        model = SiglipForImageClassification(config)
        with torch.no_grad():
            # A fresh head gives every image nearly the same scores, and a mixed-up answer would go unseen.
            model.classifier.weight.mul_(4)
            model.classifier.bias.zero_()
        model.save_pretrained(folder)
    SiglipImageProcessorPil(**{"resample": 2, **(processor or {})}).save_pretrained(folder)
    return folder
