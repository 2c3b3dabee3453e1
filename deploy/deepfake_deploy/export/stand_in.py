"""Weights for a machine that cannot reach the Hub: the real architecture at full size, seeded random numbers.

Right shapes and right cost; the verdicts mean nothing.
"""

from __future__ import annotations

from pathlib import Path

import torch
from transformers import SiglipConfig, SiglipForImageClassification
from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil

from .contract import IMAGE_SIZE, RESAMPLE
from .silence import silent_transformers

STAND_IN = "stand-in"
SEED = 8000


def write_stand_in(folder: Path, labels: list[str]) -> None:
    """Write a checkpoint as transformers would, with `labels` in class order; the same bytes at every call."""
    with silent_transformers(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(SEED)
        config = SiglipConfig(
            vision_config={"image_size": IMAGE_SIZE},  # transformers' defaults are google/siglip2-base-patch16-224's
            id2label=dict(enumerate(labels)),
            label2id={label: index for index, label in enumerate(labels)},
        )
        SiglipForImageClassification(config).save_pretrained(folder)
    SiglipImageProcessorPil(resample=int(RESAMPLE)).save_pretrained(folder)
