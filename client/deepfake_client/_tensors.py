"""The models' tensors: their names, how an image becomes one, and how strings travel in them."""

from __future__ import annotations

import hashlib
import io
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ._errors import DeepfakeError, InvalidArgumentError, ProtocolError
from ._images import AsyncBinaryFile, name_of, read_encoded
from ._transports.base import Tensor
from .preprocessing import (
    IMAGE_SIZE,
    Decoding,
    ImageLimits,
    ImageSource,
    Pixels,
    checked_decoding,
    load_image,
    to_pixels,
)

#: The contract between this client and the model repository.
PIXELS = "pixels"
IMAGE = "image"
PROBABILITIES = "probabilities"
PROVENANCE = "provenance"

_SHAPE = (IMAGE_SIZE, IMAGE_SIZE, 3)

#: Who decodes images: this process, or the server.
Decode: TypeAlias = Literal["client", "server"]


def checked_pixels(pixels: object, *, batch: bool) -> NDArray[np.uint8]:
    """`pixels` as uint8 of shape (N, 224, 224, 3), N = 1 unless `batch`.

    Nothing is converted: a wrong range or channel order would give a wrong verdict without a sign.
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


def require_several(images: object, iterations: Sequence[str]) -> None:
    """Refuses what `classify_many` would take apart: one image in place of several, or a mapping of names.

    `iterations` are the special methods by which the client can iterate; one of them has to be there.
    """
    if isinstance(images, Mapping):
        raise InvalidArgumentError("images must be a list of images, not a mapping: pass its values()")
    one = (
        isinstance(images, (str, bytes, bytearray, memoryview, os.PathLike, Image.Image))
        or callable(getattr(images, "read", None))
        or (isinstance(images, np.ndarray) and images.ndim < 4 and images.dtype.kind in "biufc")
    )
    if one:
        raise InvalidArgumentError(f"images must be a list of images, not one {type(images).__name__}: pass [image]")
    if not any(hasattr(images, name) for name in iterations):
        raise InvalidArgumentError(f"images must be a list or an iterable of images, not {type(images).__name__}")


def tensor_of(rows: NDArray[np.uint8]) -> Tensor:
    """`rows` as a tensor that shares their memory where they are contiguous."""
    return Tensor("UINT8", rows.shape, np.ascontiguousarray(rows).data.cast("B"))


def string_tensor(elements: Sequence[bytes], shape: tuple[int, ...]) -> Tensor:
    """`elements`, in row-major order, as a BYTES tensor of `shape`: each after its length in 4 bytes, little-endian."""
    return Tensor("BYTES", shape, b"".join(len(element).to_bytes(4, "little") + element for element in elements))


def strings_in(tensor: Tensor) -> list[str]:
    """The elements of a BYTES tensor, in row-major order."""
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


@dataclass(frozen=True, slots=True)
class ImageDigest:
    """Says which image it was, and does not show it.

    Attributes:
        sha256: in hexadecimal.
        of: "file", the encoded image as it was given; "pixels", for one that has no encoded form (a PIL image, an
            array), the 224 × 224 × 3 bytes that the model takes.
    """

    sha256: str
    of: Literal["file", "pixels"]


def digest_of(content: bytes | memoryview, of: Literal["file", "pixels"]) -> ImageDigest:
    return ImageDigest(hashlib.sha256(content).hexdigest(), of)


def digests_of_pixels(tensor: Tensor) -> list[ImageDigest]:
    """One for each image of a batch of pixels."""
    data = memoryview(tensor.data)
    size = len(data) // tensor.shape[0]
    return [digest_of(data[start : start + size], "pixels") for start in range(0, len(data), size)]


@dataclass(frozen=True, slots=True)
class PreparedImage:
    """What is sent for an image, and its digest where a verdict log asks for one."""

    tensor: Tensor
    digest: ImageDigest | None


@dataclass(frozen=True, slots=True)
class ModelInput:
    """What a model takes, and how an image becomes it.

    Attributes:
        model: the model that takes it, unless the caller names another.
        name: its input tensor, `PIXELS` or `IMAGE`.
        decoding: how files are decoded, where it is `PIXELS`.
    """

    model: str
    name: str
    decoding: Decoding = "exact"

    def prepare(self, image: ImageSource | AsyncBinaryFile, limits: ImageLimits, *, digest: bool) -> PreparedImage:
        """Reads one image and makes its tensor; takes its digest too where that is asked for."""
        try:
            if isinstance(image, (Image.Image, np.ndarray)):
                pixels = to_pixels(load_image(image, limits=limits))
                return PreparedImage(self.tensor_of(pixels), digest_of(pixels.data, "pixels") if digest else None)
            content = read_encoded(image, limits.max_bytes)
            if self.name == IMAGE:
                tensor = string_tensor([content], (1, 1))
            else:
                tensor = self.tensor_of(to_pixels(load_image(content, limits=limits, decoding=self.decoding)))
            return PreparedImage(tensor, digest_of(content, "file") if digest else None)
        except DeepfakeError as error:
            error.source = name_of(image)
            raise

    def tensor_of(self, pixels: Pixels) -> Tensor:
        """The tensor of an image that has no encoded form; where the server decodes, a PNG of its pixels."""
        if self.name == PIXELS:
            return tensor_of(pixels[np.newaxis])
        buffer = io.BytesIO()
        Image.fromarray(pixels).save(buffer, "PNG", compress_level=1)
        return string_tensor([buffer.getvalue()], (1, 1))

    def black(self) -> Tensor:
        """A black image, to ask for the labels with."""
        return self.tensor_of(np.zeros(_SHAPE, np.uint8))


#: 150,528 bytes for each image.
PIXELS_INPUT = ModelInput("deepfake_vs_real", PIXELS)
#: The image as it is.
ENCODED_INPUT = ModelInput("deepfake_vs_real_image", IMAGE)


def input_for(decode: Decode, decoding: Decoding) -> ModelInput:
    if decode not in ("client", "server"):
        raise InvalidArgumentError(f"decode must be 'client' or 'server', not {decode!r:.40}")
    if checked_decoding(decoding) == "exact":
        return PIXELS_INPUT if decode == "client" else ENCODED_INPUT
    if decode == "server":
        raise InvalidArgumentError(
            "decoding='fast' is for a client that decodes (decode='client'); with decode='server' the parameter "
            "`decoding` of the server's image_decoder decides"
        )
    return replace(PIXELS_INPUT, decoding=decoding)
