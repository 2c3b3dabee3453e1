"""The models' tensors: how an image becomes one, and how arrays and strings travel in them."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any, Literal, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ._errors import InvalidArgumentError, ProtocolError
from ._images import read_encoded
from ._transports.base import Tensor
from .preprocessing import IMAGE_SIZE, ImageLimits, ImageSource, load_image, to_pixels

#: The contract between this client and the model repository.
PIXELS = "pixels"
IMAGE = "image"
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


#: Who decodes images: this process, or the server.
Decode: TypeAlias = Literal["client", "server"]


class ModelInput(Protocol):
    """What a model takes, and how an image becomes it."""

    #: the model that takes it, unless the caller names another
    model: str
    #: its input tensor
    name: str

    def prepare(self, image: ImageSource, limits: ImageLimits) -> Tensor:
        """The tensor of one image.

        Raises:
            ImageError: the image cannot be used.
            InvalidArgumentError: it is no image source at all.
        """

    def black(self) -> Tensor:
        """A black image, to ask for the labels with."""


class PixelsInput:
    """Decodes here: 150,528 bytes for each image."""

    model = "deepfake_vs_real"
    name = PIXELS

    def prepare(self, image: ImageSource, limits: ImageLimits) -> Tensor:
        return tensor_of(to_pixels(load_image(image, limits=limits))[np.newaxis])

    def black(self) -> Tensor:
        return tensor_of(np.zeros((1, IMAGE_SIZE, IMAGE_SIZE, 3), np.uint8))


class EncodedInput:
    """Sends the image as it is; what has no encoded form, a PIL image or an array, as a PNG of its pixels."""

    model = "deepfake_vs_real_image"
    name = IMAGE

    def prepare(self, image: ImageSource, limits: ImageLimits) -> Tensor:
        if isinstance(image, (Image.Image, np.ndarray)):
            # Of the model's size: small, quick to encode, and left as it is by the server's resize.
            return string_tensor([_png(Image.fromarray(to_pixels(load_image(image, limits=limits))))], (1, 1))
        return string_tensor([read_encoded(image, limits.max_bytes)], (1, 1))

    def black(self) -> Tensor:
        return string_tensor([_png(Image.new("RGB", (1, 1)))], (1, 1))


def input_for(decode: Decode) -> ModelInput:
    """The input that `decode` names.

    Raises:
        InvalidArgumentError: it names none.
    """
    if decode == "client":
        return PixelsInput()
    if decode == "server":
        return EncodedInput()
    raise InvalidArgumentError(f"decode must be 'client' or 'server', not {decode!r:.40}")


def _png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()
