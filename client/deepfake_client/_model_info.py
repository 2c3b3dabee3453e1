"""What `model_info` gives back."""

from __future__ import annotations

from dataclasses import dataclass

from ._errors import ProtocolError
from ._transports.base import ModelConfig, ModelMetadata

#: Names of the model's tensors; the contract between this client and the model repository.
PIXELS = "pixels"
PROBABILITIES = "probabilities"


@dataclass(frozen=True, slots=True)
class ModelInfo:
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


def classes_in(metadata: ModelMetadata) -> int:
    """How many classes the model's probabilities have.

    Raises:
        ProtocolError: the model is not one that takes pixels and gives probabilities.
    """
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
