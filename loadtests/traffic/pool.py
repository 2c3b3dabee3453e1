"""Images of which no two are alike, made from a few that are kept.

A server with a response cache, or anything before it that remembers answers, must not meet an image twice unless it is
meant to. Keeping a million images is no way to get there, and encoding one for each request would load the machine that
measures. So each image is a function of a number: numbers are counted up from a random 128-bit one, so that neither two
processes nor two runs share any.
"""

from __future__ import annotations

import io
import re
import secrets
from collections.abc import Iterator
from itertools import count
from typing import Protocol, TypeAlias

import numpy as np
from deepfake_client.preprocessing import IMAGE_SIZE
from numpy.typing import NDArray
from PIL import Image

#: What is sent: pixels of shape (224, 224, 3), uint8, or the bytes of an image file.
Payload: TypeAlias = NDArray[np.uint8] | bytes

_NUMBER_BYTES = 16
_BASE_IMAGES = 64
_JPEG_VARIANTS = 16
_MCU_ROW = 16  # pixel rows of one row of blocks with 4:2:0 chroma
_RESTART = re.compile(rb"\xff[\xd0-\xd7]")
_START_OF_SCAN = b"\xff\xda"
_END_OF_IMAGE = b"\xff\xd9"


class Pool(Protocol):
    """A source of images."""

    @property
    def memory_bytes(self) -> int:
        """What is kept in memory, whatever the number of images drawn."""

    def image(self, number: int) -> Payload:
        """The image of this number; another number below 2**128 gives another image."""


def numbers() -> Iterator[int]:
    """Numbers of images, from a random one up; two processes do not meet."""
    return count(secrets.randbits(8 * _NUMBER_BYTES - 1))


class PixelPool:
    """Preprocessed images, 150,528 bytes each, of which 9.6 MB are kept.

    The number is written over the first 16 values of one of 64 images.
    """

    def __init__(self, seed: int = 0) -> None:
        random = np.random.default_rng(seed)
        self._images = [picture(IMAGE_SIZE, random).reshape(-1) for _ in range(_BASE_IMAGES)]

    @property
    def memory_bytes(self) -> int:
        return sum(image.nbytes for image in self._images)

    def image(self, number: int) -> NDArray[np.uint8]:
        pixels = self._images[number % _BASE_IMAGES].copy()
        pixels[:_NUMBER_BYTES] = np.frombuffer(number.to_bytes(_NUMBER_BYTES, "little"), np.uint8)
        return pixels.reshape(IMAGE_SIZE, IMAGE_SIZE, 3)


class JpegPool:
    """JPEG files of `side` × `side` pixels, put together from 16 that are kept.

    A JPEG with a restart marker after every row of blocks can be cut between these rows, and any row of one file can
    stand in the place of the same row of another. The digits of the number, to the base 16, say which file each row is
    taken from, so that different numbers differ in bytes and, after decoding, in pixels: a comment or a trailing byte
    would get past a cache of files, but not past one of decoded pixels.

    Args:
        side: see `check_side`.
    """

    def __init__(self, side: int = 512, seed: int = 0) -> None:
        check_side(side)
        random = np.random.default_rng(seed)
        files = [_cut(_encode(picture(side, random))) for _ in range(_JPEG_VARIANTS)]
        self._head = files[0][0]
        self._rows = [rows for _, rows in files]
        if any(head != self._head or len(rows) != side // _MCU_ROW for head, rows in files):
            raise ValueError("this build of Pillow writes JPEG files that cannot be cut at their restart markers")

    @property
    def memory_bytes(self) -> int:
        return len(self._head) + sum(len(row) for rows in self._rows for row in rows)

    def image(self, number: int) -> bytes:
        parts = [self._head]
        for index in range(len(self._rows[0])):
            number, digit = divmod(number, _JPEG_VARIANTS)
            parts.append(self._rows[digit][index])
        return b"".join([*parts, _END_OF_IMAGE])


def pool_for(payload: str, side: int) -> Pool:
    """The pool for a payload of "pixels" or "image"."""
    return JpegPool(side) if payload == "image" else PixelPool()


def check_side(side: int) -> None:
    """Refuses a side that makes too few rows: with 32 of them there are 2**128 images.

    Raises:
        ValueError: it is below 512 or no multiple of 16.
    """
    if side < 2 * _MCU_ROW * _NUMBER_BYTES or side % _MCU_ROW:
        raise ValueError(f"the side of an image must be a multiple of {_MCU_ROW}, 512 at least, not {side}")


def picture(side: int, random: np.random.Generator) -> NDArray[np.uint8]:
    """Soft blotches of colour with some grain, (side, side, 3): about what JPEG and scaling make of a photo."""
    blotches = Image.fromarray(random.integers(0, 256, (7, 7, 3), dtype=np.uint8))
    smooth = np.asarray(blotches.resize((side, side), Image.Resampling.BICUBIC), np.int16)
    grain = random.integers(-10, 11, (side, side, 1), dtype=np.int16)
    return (smooth + grain).clip(0, 255).astype(np.uint8)


def _encode(pixels: NDArray[np.uint8]) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=85, subsampling="4:2:0", restart_marker_rows=1)
    return buffer.getvalue()


def _cut(file: bytes) -> tuple[bytes, list[bytes]]:
    """What stands before the first row of blocks, and the rows, each with the marker that ends it but the last."""
    begins = file.index(_START_OF_SCAN)
    begins += 2 + int.from_bytes(file[begins + 2 : begins + 4], "big")
    scan = file[begins : file.rindex(_END_OF_IMAGE)]
    ends = [found.end() for found in _RESTART.finditer(scan)] + [len(scan)]
    return file[:begins], [scan[start:end] for start, end in zip([0, *ends], ends, strict=False)]
