"""What the server tells of the weights that it serves.

Nothing in the KServe v2 protocol carries this, so the model repository has a small model for it, `provenance`, which
answers with the `provenance.json` that `deepfake export` wrote beside the weights.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from ._credentials import Headers
from ._errors import ProtocolError
from ._string_tensors import string_tensor, strings_in
from ._transports.base import InferRequest, InferResponse, RequestedOutput

#: The model that answers, and its output.
PROVENANCE = "provenance"
_STAND_IN = "stand-in"


@dataclass(frozen=True, slots=True)
class Provenance:
    """Where the served weights come from.

    Attributes:
        model_version: of the classifier.
        weights: "checkpoint", or "stand-in" for seeded random weights whose verdicts mean nothing.
        model_id: Hub id or folder that was exported.
        revision: commit on the Hub; None for a folder.
        precision: "fp32", "bf16" or "fp16".
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
    document: Mapping[str, Any]

    @property
    def stand_in(self) -> bool:
        """Whether the weights are random, and the verdicts without meaning."""
        return self.weights == _STAND_IN


def provenance_request(
    model: str, version: str, request_id: str, queue_timeout_microseconds: int, headers: Headers
) -> InferRequest:
    """The question for the provenance of one version of `model`."""
    return InferRequest(
        model=PROVENANCE,
        version="",
        request_id=request_id,
        inputs={
            "model": string_tensor([model.encode()], (1, 1)),
            "version": string_tensor([version.encode()], (1, 1)),
        },
        outputs=(RequestedOutput(PROVENANCE),),
        queue_timeout_microseconds=queue_timeout_microseconds,
        headers=headers,
    )


def provenance_in(response: InferResponse, version: str) -> Provenance | None:
    """The answer; None when nothing was written beside the weights.

    Raises:
        ProtocolError: it is no document of the export.
    """
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
            document=MappingProxyType(document),
        )
    except (ValueError, KeyError, TypeError, RecursionError):
        raise ProtocolError(
            f"the provenance of version {version} is not what `deepfake export` writes: export the weights again"
        ) from None
