"""The served graph, and its rivals: another precision, memory layout or attention."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from deepfake_deploy.export import Precision
from deepfake_deploy.export.checkpoint import Checkpoint, load_model, open_checkpoint
from deepfake_deploy.export.contract import Preprocessing, check_configuration, check_preprocessing, read_labels
from deepfake_deploy.export.reporting import silent_transformers
from deepfake_deploy.export.torchscript import ClassifierGraph, serialise, trace_and_freeze
from transformers import SiglipForImageClassification

from .silence import Silent

Layout = Literal["as exported", "contiguous", "channels_last weights", "strided residual"]


@dataclass(frozen=True, slots=True)
class Variant:
    """What the graph is traced with. The defaults are those of `deepfake export`."""

    precision: Precision
    layout: Layout = "as exported"
    """Of the patch convolution. As exported its input is a view of the pixels (channels_last by its strides) and its
    weights are contiguous; "contiguous" copies the input first, "channels_last weights" stores these so as well.
    "strided residual" leaves the copy after the patch embedding out."""
    attention: Literal["sdpa", "eager"] = "sdpa"


class Models:
    """Writes the `model.pt` of any variant of one checkpoint; made by `open_models`."""

    def __init__(self, checkpoint: Checkpoint, preprocessing: Preprocessing, folder: Path) -> None:
        self.checkpoint = checkpoint
        self._preprocessing, self._folder = preprocessing, folder
        self._classifier: SiglipForImageClassification | None = None
        self._written: dict[Variant, Path] = {}

    def write(self, variant: Variant) -> Path:
        """The variant's model.pt, written once. What `deepfake export` writes, less its comparison with transformers."""
        if variant not in self._written:
            self._classifier = self._classifier or load_model(self.checkpoint)
            path = self._folder / f"{len(self._written)}.pt"
            path.write_bytes(serialise(trace_and_freeze(self._graph(self._classifier, variant))))
            self._written[variant] = path
        return self._written[variant]

    def release(self) -> None:
        """Lets the classifier's memory go; what is written stays."""
        self._classifier = None

    def _graph(self, classifier: SiglipForImageClassification, variant: Variant) -> ClassifierGraph:
        if variant.attention != "sdpa":
            classifier = copy.deepcopy(classifier)
            with silent_transformers():
                classifier.set_attn_implementation(variant.attention)
        graph_class = _StridedResidual if variant.layout == "strided residual" else ClassifierGraph
        graph = graph_class(classifier, self._preprocessing, variant.precision)
        convolution: Any = graph.embeddings.patch_embedding
        if variant.layout == "contiguous":
            convolution.register_forward_pre_hook(lambda _, inputs: (inputs[0].contiguous(),))
        elif variant.layout == "channels_last weights":
            convolution.to(memory_format=torch.channels_last)
        return graph


class _StridedResidual(ClassifierGraph):
    def forward(self, pixels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        images = (pixels.permute(0, 3, 1, 2).to(torch.float32) * self.scale - self.mean) / self.std
        hidden = self.encoder(inputs_embeds=self.embeddings(images.to(self.dtype))).last_hidden_state
        logits = self.classifier(self.post_layernorm(hidden).to(torch.float32).mean(dim=1))
        return torch.softmax(logits, dim=-1), logits


@contextlib.contextmanager
def open_models(model: str, revision: str | None, repository: Path, folder: Path) -> Iterator[Models]:
    """Models of the checkpoint named by a local folder, a Hub id or "stand-in".

    Args:
        model, revision: as for `deepfake export`.
        repository: model repository with the labels that the checkpoint must have.
        folder: where they are written.

    Raises:
        ExportError: the checkpoint cannot be had, or does not fit the contract.
    """
    labels = read_labels(repository)
    with open_checkpoint(model, revision, labels, Silent()) as checkpoint:
        check_configuration(checkpoint.folder, labels)
        yield Models(checkpoint, check_preprocessing(checkpoint.folder), folder)
