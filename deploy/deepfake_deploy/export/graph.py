"""The graph that Triton serves: pixels in, probabilities and logits out."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn
from transformers import SiglipForImageClassification

from .contract import Preprocessing
from .precision import Precision


class ClassifierGraph(nn.Module):
    """A SigLIP classifier from uint8 pixels to softmax, ready to be traced.

    Args:
        model: the classifier in fp32; left unchanged.
        preprocessing: the checkpoint's numbers.
        precision: format of the encoder. Normalisation, pooling, classifier and softmax stay in fp32: they cost
            nothing, and TorchScript would otherwise carry half-precision rounding into what callers read.
    """

    scale: Tensor
    mean: Tensor
    std: Tensor

    def __init__(self, model: SiglipForImageClassification, preprocessing: Preprocessing, precision: Precision) -> None:
        super().__init__()
        self.dtype = precision.dtype
        vision = copy.deepcopy(model.vision_model).to(self.dtype)
        self.embeddings, self.encoder, self.post_layernorm = vision.embeddings, vision.encoder, vision.post_layernorm
        self.classifier = copy.deepcopy(model.classifier)
        self.register_buffer("scale", torch.tensor(preprocessing.rescale_factor, dtype=torch.float32))
        self.register_buffer("mean", torch.tensor(preprocessing.mean, dtype=torch.float32).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor(preprocessing.std, dtype=torch.float32).view(1, 3, 1, 1))

    def forward(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """Classify a batch.

        Args:
            pixels: uint8, (N, 224, 224, 3), RGB.

        Returns:
            probabilities and logits, each fp32 (N, classes). config.pbtxt relies on this order.
        """
        images = (pixels.permute(0, 3, 1, 2).to(torch.float32) * self.scale - self.mean) / self.std
        # The patch embedding ends in a transposed view; without the copy every layer would read and write the
        # residual stream across memory (huggingface/diffusers#14236 measures what that costs on GPUs).
        hidden = self.embeddings(images.to(self.dtype)).contiguous()
        hidden = self.encoder(inputs_embeds=hidden).last_hidden_state
        pooled = self.post_layernorm(hidden).to(torch.float32).mean(dim=1)
        logits = self.classifier(pooled)
        return torch.softmax(logits, dim=-1), logits
