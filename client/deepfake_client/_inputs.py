"""What a model takes: pixels that are made here, or the encoded image, which the server decodes.

Both go through the same preprocessing, so they give the same verdicts.
"""

from __future__ import annotations

import io
from typing import Literal, Protocol, TypeAlias

import numpy as np
from PIL import Image

from ._errors import InvalidArgumentError
from ._images import read_encoded
from ._tensors import string_tensor, tensor_of
from ._transports.base import Tensor
from .preprocessing import IMAGE_SIZE, ImageLimits, ImageSource, load_image, to_pixels

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
    name = "pixels"

    def prepare(self, image: ImageSource, limits: ImageLimits) -> Tensor:
        return tensor_of(to_pixels(load_image(image, limits=limits))[np.newaxis])

    def black(self) -> Tensor:
        return tensor_of(np.zeros((1, IMAGE_SIZE, IMAGE_SIZE, 3), np.uint8))


class EncodedInput:
    """Sends the image as it is; what has no encoded form, a PIL image or an array, as a PNG of its pixels."""

    model = "deepfake_vs_real_image"
    name = "image"

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
