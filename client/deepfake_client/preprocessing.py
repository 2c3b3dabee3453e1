"""From an image in any form to the pixels the model takes: the one implementation of it.

The client, the decoder that runs inside Triton and the evaluation all go through `load_image` and `to_pixels`. Both
do, bit for bit, what transformers does for this checkpoint: `load_image` (upright by EXIF, then `convert("RGB")`),
and the resize of its SigLIP processor (Pillow, bilinear with antialias, aspect ratio not kept). No colour profile is
applied and transparency is dropped, not blended, because the model was trained on pixels made that way.

One thing differs. transformers clips grey of more than eight bits at 255, which makes it all white. Here 16-bit grey is
scaled to eight bits like 16-bit colour, by its high byte, and 32-bit and float pixels are refused. `decoding="fast"`
differs too, by a few grey levels, for large JPEGs alone.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias, Union

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ._errors import DeepfakeError, InvalidArgumentError, bare
from ._image_limits import require_pixels
from ._images import RESAMPLING, BinaryFile, decode, name_of, read_encoded, upright_rgb

__all__ = ["IMAGE_SIZE", "ImageLimits", "ImageSource", "Pixels", "load_image", "to_pixels"]

#: Height and width of the model's input, in pixels.
IMAGE_SIZE = 224

#: What the model takes: uint8 of shape (224, 224, 3), height × width × RGB, 0 to 255.
Pixels: TypeAlias = NDArray[np.uint8]

#: What can be classified. The array is uint8 of shape (height, width, 3), RGB.
ImageSource: TypeAlias = Union[
    str, "os.PathLike[str]", bytes, bytearray, memoryview, BinaryFile, Image.Image, NDArray[np.uint8]
]

#: How files are decoded: "exact", or "fast", which has libjpeg scale large JPEGs down while it decodes them.
Decoding: TypeAlias = Literal["exact", "fast"]


def checked_decoding(decoding: object) -> Decoding:
    """`decoding`, where it is one of the two; else `InvalidArgumentError`."""
    if decoding == "exact" or decoding == "fast":
        return decoding
    raise InvalidArgumentError(f"decoding must be 'exact' or 'fast', not {decoding!r:.40}")


@dataclass(frozen=True, slots=True)
class ImageLimits:
    """How large an image may be before it is refused, by its header and before it is decoded.

    Attributes:
        max_bytes: size of the encoded image. The default, 32 MiB, is above any camera JPEG.
        max_pixels: width × height. The default, 100 million, is above the usual output of phones and cameras.
            Decoding takes 4 to 12 bytes of memory for each pixel, a WebP 16, an AVIF up to 18. So the default allows
            one image up to 1.8 GB: lower it where images come from strangers and memory is short.

    Besides, no side may be longer than 65,535 pixels.
    """

    max_bytes: int = 32 * 1024 * 1024
    max_pixels: int = 100_000_000

    def __post_init__(self) -> None:
        if self.max_bytes < 1 or self.max_pixels < 1:
            raise InvalidArgumentError("max_bytes and max_pixels must be positive")


_DEFAULT_LIMITS = ImageLimits()


def load_image(
    source: ImageSource, *, limits: ImageLimits = _DEFAULT_LIMITS, decoding: Decoding = "exact"
) -> Image.Image:
    """Reads an image as RGB, upright by its EXIF orientation, the first frame of an animation.

    Args:
        source: a path, the encoded bytes, a binary file object (read from where it stands, not closed), a PIL image,
            or a uint8 array of shape (height, width, 3), RGB.
        limits: largest size accepted, in bytes and in pixels.
        decoding: "fast" decodes an encoded JPEG with no side under 896 pixels at a half, a quarter or an eighth, of
            448 pixels at least, and resizes it to 224 × 224. All else is the same to the bit as with "exact".

    Returns:
        A PIL image of mode "RGB"; the one given where it is RGB and upright already.

    Raises:
        ImageReadError: the bytes could not be read.
        ImageFormatError: not an image, or not in one of JPEG, PNG, WebP, GIF, BMP, TIFF and, where Pillow has it, AVIF;
            or of 32-bit or float pixels, of which no range is stated.
        ImageTooLargeError: over `limits`, or a side over 65,535 pixels.
        ImageCorruptError: damaged or truncated. A JPEG that lacks only its end marker is decoded.
        InvalidArgumentError: `source` or `decoding` is none of the above.
    """
    fast_to = IMAGE_SIZE if checked_decoding(decoding) == "fast" else 0
    try:
        if isinstance(source, Image.Image):
            return upright_rgb(source, limits.max_pixels)
        if isinstance(source, np.ndarray):
            return _from_array(source, limits)
        return decode(read_encoded(source, limits.max_bytes), limits.max_pixels, fast_to)
    except DeepfakeError as error:
        error.source = name_of(source)
        raise bare(error) from None


def to_pixels(image: Image.Image) -> Pixels:
    """The model's input for one image: uint8, shape (224, 224, 3), height × width × RGB.

    Equal to the bit to what transformers' SigLIP processor of this checkpoint (`resample=2`) computes before it
    scales to floats.
    """
    rgb = image if image.mode == "RGB" else image.convert("RGB")
    return np.array(rgb.resize((IMAGE_SIZE, IMAGE_SIZE), RESAMPLING), dtype=np.uint8)


def _from_array(array: NDArray[Any], limits: ImageLimits) -> Image.Image:
    if array.dtype != np.uint8 or array.ndim != 3 or array.shape[2] != 3 or 0 in array.shape:
        raise InvalidArgumentError(
            f"an image array must be uint8 of shape (height, width, 3), not {array.dtype} of shape {array.shape}"
        )
    require_pixels((array.shape[1], array.shape[0]), limits.max_pixels)
    return Image.fromarray(np.ascontiguousarray(array))
