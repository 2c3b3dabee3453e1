"""What the server tells of the model (`ModelInfo`) and of its weights (`Provenance`)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from ._errors import ProtocolError
from ._tensors import PROBABILITIES, PROVENANCE, string_tensor, strings_in
from ._transports.base import InferResponse, ModelConfig, ModelMetadata, Tensor


class PlainData:
    """What results that are dataclasses have in common."""

    __slots__ = ()

    def to_dict(self) -> dict[str, Any]:
        """The fields as plain types, ready for `json.dumps`; errors as their text."""
        plain: dict[str, Any] = json.loads(json.dumps(asdict(self), default=str))  # type: ignore[call-overload]
        return plain


@dataclass(frozen=True, slots=True)
class ModelInfo(PlainData):
    """The model that the server serves.

    Attributes:
        name, version: which model; the version is the one that answers when none is asked for.
        labels: names of the classes by index.
        input_shape: shape of one image: (224, 224, 3), height × width × RGB; with `decode="server"` (1,), its bytes.
        input_datatype: "UINT8", or "BYTES".
        max_batch_size: most images in one request; None where the server keeps its configuration to itself.
        max_queue_size: requests that may wait before others are refused; 0 for no bound, None as above.
        backend: what runs the model, "pytorch", "" for the ensemble that decodes; None as above.
    """

    name: str
    version: str
    labels: tuple[str, ...]
    input_shape: tuple[int, ...]
    input_datatype: str
    max_batch_size: int | None
    max_queue_size: int | None
    backend: str | None


@dataclass(frozen=True, slots=True)
class Provenance(PlainData):
    """Where the served weights come from.

    Attributes:
        model_version: of the classifier.
        weights: "checkpoint", or "stand-in" for seeded random weights whose verdicts mean nothing.
        model_id: Hub id or folder that was exported.
        revision: commit on the Hub; None for a folder.
        precision: "fp32", "bf16", "fp16" or "int8".
        model_pt_sha256: of the served TorchScript file, in hexadecimal.
        labels: names of the classes by index.
        document: all that the export wrote.
    """

    model_version: str
    weights: str
    model_id: str
    revision: str | None
    precision: str
    model_pt_sha256: str
    labels: tuple[str, ...]
    document: Mapping[str, Any] = field(hash=False)

    @property
    def stand_in(self) -> bool:
        """Whether the weights are random, and the verdicts without meaning."""
        return self.weights == "stand-in"


def classes_in(metadata: ModelMetadata) -> int:
    """How many classes the model's probabilities have."""
    for output in metadata.outputs:
        if output.name == PROBABILITIES and output.shape and output.shape[-1] > 0:
            return output.shape[-1]
    raise ProtocolError(f"model {metadata.name} has no output {PROBABILITIES!r}: it is not a classifier of this kind")


def info_from(
    metadata: ModelMetadata, config: ModelConfig | None, version: str, labels: tuple[str, ...], input_name: str
) -> ModelInfo:
    """Puts the server's answers together."""
    found = next((each for each in metadata.inputs if each.name == input_name), None)
    if found is None:
        raise ProtocolError(f"model {metadata.name} has no input {input_name!r}: it is not a classifier of this kind")
    return ModelInfo(
        name=metadata.name,
        version=version,
        labels=labels,
        input_shape=found.shape[1:],
        input_datatype=found.datatype,
        max_batch_size=config.max_batch_size if config else None,
        max_queue_size=config.max_queue_size if config else None,
        backend=config.backend if config else None,
    )


def provenance_question(model: str, version: str) -> dict[str, Tensor]:
    """Asks the model `provenance` for the `provenance.json` of one version of `model`."""
    return {"model": string_tensor([model.encode()], (1, 1)), "version": string_tensor([version.encode()], (1, 1))}


def provenance_in(response: InferResponse, version: str) -> Provenance | None:
    """The answer; None when nothing was written beside the weights."""
    tensor = response.outputs.get(PROVENANCE)
    texts = strings_in(tensor) if tensor is not None and tensor.datatype == "BYTES" else []
    if len(texts) != 1:
        raise ProtocolError(f"the answer has no output {PROVENANCE!r}")
    if not texts[0]:
        return None
    try:
        document = json.loads(texts[0])
        return Provenance(
            model_version=version,
            weights=str(document["weights"]),
            model_id=str(document["model_id"]),
            revision=None if document["revision"] is None else str(document["revision"]),
            precision=str(document["precision"]),
            model_pt_sha256=str(document["model_pt_sha256"]),
            labels=tuple(map(str, document["labels"])),
            document=document,
        )
    except (ValueError, KeyError, TypeError, RecursionError):
        raise ProtocolError(
            f"the provenance of version {version} is not what `deepfake export` writes: export the weights again"
        ) from None
