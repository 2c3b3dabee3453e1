"""BYTES tensors: each element is preceded by its length in 4 bytes, little-endian."""

from __future__ import annotations

from collections.abc import Sequence

from ._errors import ProtocolError
from ._transports.base import Tensor


def string_tensor(elements: Sequence[bytes], shape: tuple[int, ...]) -> Tensor:
    """`elements`, in row-major order, as a BYTES tensor of `shape`."""
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
