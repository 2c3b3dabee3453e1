"""The model's tensors: their names, and arrays and strings on their way into and out of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ._errors import InvalidArgumentError, ProtocolError
from ._transports.base import Tensor
from .preprocessing import IMAGE_SIZE

#: The contract between this client and the model repository.
PIXELS = "pixels"
PROBABILITIES = "probabilities"
PROVENANCE = "provenance"

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


def string_tensor(elements: Sequence[bytes], shape: tuple[int, ...]) -> Tensor:
    """`elements`, in row-major order, as a BYTES tensor of `shape`: each after its length in 4 bytes, little-endian."""
    return Tensor("BYTES", shape, b"".join(len(element).to_bytes(4, "little") + element for element in elements))


def strings_in(tensor: Tensor) -> list[str]:
    """The elements of a BYTES tensor, in row-major order.

    Raises:
        ProtocolError: it is shorter than it says.
    """
    data = bytes(tensor.data)
    found: list[str] = []
    position = 0
    while position < len(data):
        length = int.from_bytes(data[position : position + 4], "little")
        end = position + 4 + length
        if end > len(data):
            raise ProtocolError("a string tensor of the answer is shorter than it says")
        found.append(data[position + 4 : end].decode("utf-8", "replace"))
        position = end
    return found
