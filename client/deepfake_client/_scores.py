"""Between arrays and messages: an image's pixels to a request's tensor, an answer's tensor to verdicts."""

from __future__ import annotations

import struct
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ._errors import InvalidArgumentError, ProtocolError
from ._model_info import PROBABILITIES
from ._policy import DecisionPolicy
from ._transports.base import InferResponse, Tensor
from ._verdict import Verdict
from .preprocessing import IMAGE_SIZE

_SHAPE = (IMAGE_SIZE, IMAGE_SIZE, 3)


def checked_pixels(pixels: object, *, batch: bool) -> NDArray[np.uint8]:
    """`pixels` as uint8 of shape (N, 224, 224, 3), N = 1 unless `batch`.

    Raises:
        InvalidArgumentError: another type or shape; nothing is converted here, since a wrong range or channel order
            would give a wrong verdict without a sign.
    """
    expected = ("(N, 224, 224, 3)" if batch else "(224, 224, 3)") + ", as to_pixels makes"
    if not isinstance(pixels, np.ndarray):
        raise InvalidArgumentError(f"pixels must be a uint8 array of shape {expected}, not {type(pixels).__name__}")
    rows: NDArray[Any] = pixels if batch else pixels[np.newaxis]
    if rows.dtype != np.uint8 or rows.shape[1:] != _SHAPE or len(rows) == 0:
        raise InvalidArgumentError(
            f"pixels must be a uint8 array of shape {expected}, not {pixels.dtype} of shape {pixels.shape}"
        )
    return rows


def tensor_of(rows: NDArray[np.uint8]) -> Tensor:
    """`rows` as a tensor that shares their memory where they are contiguous."""
    return Tensor("UINT8", rows.shape, np.ascontiguousarray(rows).data.cast("B"))


def probabilities_in(response: InferResponse, count: int) -> list[tuple[float, ...]]:
    """The probabilities of `count` images, a tuple with one number for each class.

    Raises:
        ProtocolError: the tensor is missing, has another type or shape, or holds what are no probabilities.
    """
    tensor = response.outputs.get(PROBABILITIES)
    if tensor is None:
        raise ProtocolError(f"the answer has no output {PROBABILITIES!r}")
    if tensor.datatype != "FP32" or len(tensor.shape) != 2 or tensor.shape[0] != count or tensor.shape[1] < 1:
        raise ProtocolError(f"{PROBABILITIES} came as {tensor.datatype} of shape {tensor.shape} for {count} image(s)")
    if len(tensor.data) != 4 * count * tensor.shape[1]:
        raise ProtocolError(f"{PROBABILITIES} has {len(tensor.data)} bytes, which do not fit shape {tensor.shape}")
    # For two numbers, numpy takes ten times as long as struct.
    rows = list(struct.iter_unpack(f"<{tensor.shape[1]}f", tensor.data))
    for row in rows:
        # Written so that NaN fails too. Half precision leaves sums off by some 1e-3.
        if not (min(row) >= 0 and abs(sum(row) - 1) < 0.05):
            raise ProtocolError(f"{PROBABILITIES} are not between 0 and 1 with a sum of 1: the model is broken")
    return rows


def verdicts_from(
    rows: list[tuple[float, ...]],
    labels: tuple[str, ...],
    response: InferResponse,
    request_id: str,
    source: str | None,
    policy: DecisionPolicy | None,
) -> list[Verdict]:
    """One verdict for each row, with the decision of `policy` where there is one.

    Raises:
        InvalidArgumentError: the policy decides between other labels.
    """
    found = []
    for row in rows:
        scores = dict(zip(labels, row, strict=True))
        found.append(
            Verdict(
                label=labels[row.index(max(row))],
                scores=MappingProxyType(scores),
                source=source,
                model=response.model,
                model_version=response.version,
                request_id=request_id,
                decision=None if policy is None else policy.decide(scores),
            )
        )
    return found
