"""Images of which no two are alike, and the requests that are made of them.

Each image is a function of a number, and numbers count up from a random 128-bit one: neither two processes nor two runs
share any, so nothing that remembers answers meets an image twice unless it is meant to.
"""

from __future__ import annotations

import io
import random
import re
import secrets
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from typing import Any, TypeAlias

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
_START_OF_SCAN, _END_OF_IMAGE = b"\xff\xda", b"\xff\xd9"
_RECENT = 32  # in any cache that holds so many images


class PixelPool:
    """Preprocessed images, 150,528 bytes each; the number stands in the first 16 values of one of 64 images."""

    def __init__(self) -> None:
        generator = np.random.default_rng(0)
        self._images = [picture(IMAGE_SIZE, generator).reshape(-1) for _ in range(_BASE_IMAGES)]

    def image(self, number: int) -> NDArray[np.uint8]:
        """The image of a number below 2**128."""
        pixels = self._images[number % _BASE_IMAGES].copy()
        pixels[:_NUMBER_BYTES] = np.frombuffer(number.to_bytes(_NUMBER_BYTES, "little"), np.uint8)
        return pixels.reshape(IMAGE_SIZE, IMAGE_SIZE, 3)


class JpegPool:
    """JPEG files of `side` × `side` pixels, put together from 16 that are kept.

    Each has a restart marker after every row of blocks, so a row of one file can stand in for the same row of another.
    The digits of the number, to the base 16, say which file each row comes from. A side of 512 or more gives the 32 rows
    that a 128-bit number needs; it is a multiple of 16.
    """

    def __init__(self, side: int = 512) -> None:
        generator = np.random.default_rng(0)
        files = [_cut(encoded(picture(side, generator))) for _ in range(_JPEG_VARIANTS)]
        self._head = files[0][0]
        self._rows = [rows for _, rows in files]
        if any(head != self._head or len(rows) != side // _MCU_ROW for head, rows in files):
            raise ValueError("this build of Pillow writes JPEG files that cannot be cut at their restart markers")

    def image(self, number: int) -> bytes:
        """The file of a number below 2**128."""
        parts = [self._head]
        for index in range(len(self._rows[0])):
            number, digit = divmod(number, _JPEG_VARIANTS)
            parts.append(self._rows[digit][index])
        return b"".join([*parts, _END_OF_IMAGE])


@dataclass(frozen=True, slots=True)
class KnownAnswer:
    """An image and the scores that every request for it must bring."""

    payload: Payload
    scores: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Item:
    """One request to be made; `repeated` when the same image was sent before, on purpose."""

    payload: Payload
    repeated: bool = False
    known: KnownAnswer | None = None


class Stream:
    """Requests without an end: new images, some repeated, some with a known answer.

    Args:
        payload: "pixels" or "image".
        side: of JPEG files, see `JpegPool`.
        known_rate: share of requests that send an image with a known answer.
        repeat_rate: share of requests that repeat one of the last 32 new images.
        seed: of the order of these; the images themselves never repeat, whatever the seed.
    """

    def __init__(
        self,
        payload: str,
        side: int = 512,
        known: Sequence[KnownAnswer] = (),
        known_rate: float = 0.0,
        repeat_rate: float = 0.0,
        seed: int | None = None,
    ) -> None:
        self._pool = JpegPool(side) if payload == "image" else PixelPool()
        self._known = known
        self._known_rate, self._repeat_rate = known_rate if known else 0.0, repeat_rate
        self._random = random.Random(seed)  # noqa: S311 - a load, not a secret
        self._numbers = numbers()
        self._recent: deque[int] = deque(maxlen=_RECENT)

    def next(self) -> Item:
        """The next request; preparing it takes well under a millisecond, and belongs before the clock starts."""
        dice = self._random.random()
        if dice < self._known_rate:
            known = self._random.choice(self._known)
            return Item(known.payload, known=known)
        if self._recent and dice < self._known_rate + self._repeat_rate:
            return Item(self._pool.image(self._random.choice(self._recent)), repeated=True)
        number = next(self._numbers)
        self._recent.append(number)
        return Item(self._pool.image(number))


def numbers() -> Iterator[int]:
    """Numbers of images, from a random one up; two processes do not meet."""
    return count(secrets.randbits(8 * _NUMBER_BYTES - 1))


def picture(side: int, generator: np.random.Generator) -> NDArray[np.uint8]:
    """Soft blotches of colour with some grain, (side, side, 3): about what JPEG and scaling make of a photo."""
    blotches = Image.fromarray(generator.integers(0, 256, (7, 7, 3), dtype=np.uint8))
    smooth = np.asarray(blotches.resize((side, side), Image.Resampling.BICUBIC), np.int16)
    grain = generator.integers(-10, 11, (side, side, 1), dtype=np.int16)
    return (smooth + grain).clip(0, 255).astype(np.uint8)


def encoded(pixels: NDArray[np.uint8], kind: str = "JPEG") -> bytes:
    """An image file; a JPEG has a restart marker after every row of blocks."""
    options: dict[str, Any] = {"quality": 85, "subsampling": "4:2:0", "restart_marker_rows": 1}
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind, **(options if kind == "JPEG" else {}))
    return buffer.getvalue()


def _cut(file: bytes) -> tuple[bytes, list[bytes]]:
    """What stands before the first row of blocks, and the rows, each with the marker that ends it but the last."""
    begins = file.index(_START_OF_SCAN)
    begins += 2 + int.from_bytes(file[begins + 2 : begins + 4], "big")
    scan = file[begins : file.rindex(_END_OF_IMAGE)]
    ends = [found.end() for found in _RESTART.finditer(scan)] + [len(scan)]
    return file[:begins], [scan[start:end] for start, end in zip([0, *ends], ends, strict=False)]
