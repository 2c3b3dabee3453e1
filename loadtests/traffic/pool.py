"""Images of which no two are alike, and the requests that are made of them.

Each image is a function of a number, and numbers count up from a random 63-bit one: neither two processes nor two runs
share any, so nothing that remembers answers meets an image twice unless it is meant to.
"""

from __future__ import annotations

import io
import random
import secrets
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from typing import TypeAlias

import numpy as np
from deepfake_client.preprocessing import IMAGE_SIZE
from numpy.typing import NDArray
from PIL import Image

#: What is sent: pixels of shape (224, 224, 3), uint8, or the bytes of an image file.
Payload: TypeAlias = NDArray[np.uint8] | bytes

_NUMBER_BITS = 64
_BASE_PIXELS, _BASE_FILES = 64, 16
_LUMINANCE_TABLE = b"\xff\xdb\x00\x43\x00"  # in a JPEG file, what the 64 quantisation steps of its luminance follow
_RECENT = 32  # in any cache that holds so many images


class PixelPool:
    """Preprocessed images, 150,528 bytes each; the number stands in the first eight values of one of 64 images."""

    def __init__(self) -> None:
        generator = np.random.default_rng(0)
        self._images = [picture(IMAGE_SIZE, generator) for _ in range(_BASE_PIXELS)]

    def image(self, number: int) -> NDArray[np.uint8]:
        pixels = self._images[number % _BASE_PIXELS].copy()
        number_bytes = number.to_bytes(_NUMBER_BITS // 8, "little")
        pixels.reshape(-1)[: len(number_bytes)] = np.frombuffer(number_bytes, np.uint8)
        return pixels


class JpegPool:
    """JPEG files of `side` × `side` pixels: one of 16, with a bit of the number added to each quantisation step.

    A step scales one frequency of the whole image, so that what a server decodes differs as well.
    """

    def __init__(self, side: int = 512) -> None:
        generator = np.random.default_rng(0)
        self._files = [encoded(picture(side, generator)) for _ in range(_BASE_FILES)]

    def image(self, number: int) -> bytes:
        file = bytearray(self._files[number % _BASE_FILES])
        table = file.index(_LUMINANCE_TABLE) + len(_LUMINANCE_TABLE)
        for bit in range(_NUMBER_BITS):
            file[table + bit] += number >> bit & 1
        return bytes(file)


@dataclass(frozen=True, slots=True)
class Item:
    payload: Payload
    scores: Mapping[str, float] | None = None
    """Which it must bring, where they are known."""
    repeated: bool = False
    """Whether the same image was sent before, on purpose."""


class Stream:
    """Requests without an end: new images, some repeated, some with a known answer.

    Args:
        payload: "pixels", or "image" for JPEG files of `side` × `side`.
        known_rate: share of requests that send an image with a known answer.
        repeat_rate: share of requests that repeat one of the last 32 new images.
        seed: of the order of these, not of the images.
    """

    def __init__(
        self,
        payload: str,
        side: int = 512,
        known: Sequence[Item] = (),
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
            return self._random.choice(self._known)
        if self._recent and dice < self._known_rate + self._repeat_rate:
            return Item(self._pool.image(self._random.choice(self._recent)), repeated=True)
        number = next(self._numbers)
        self._recent.append(number)
        return Item(self._pool.image(number))


def numbers() -> Iterator[int]:
    """Numbers of images, from a random one up; two processes do not meet."""
    return count(secrets.randbits(_NUMBER_BITS - 1))


def picture(side: int, generator: np.random.Generator) -> NDArray[np.uint8]:
    """Soft blotches of colour with some grain, (side, side, 3): about what JPEG and scaling make of a photo."""
    blotches = Image.fromarray(generator.integers(0, 256, (7, 7, 3), dtype=np.uint8))
    smooth = np.asarray(blotches.resize((side, side), Image.Resampling.BICUBIC), np.int16)
    grain = generator.integers(-10, 11, (side, side, 1), dtype=np.int16)
    return (smooth + grain).clip(0, 255).astype(np.uint8)


def encoded(pixels: NDArray[np.uint8], kind: str = "JPEG") -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind, quality=85)
    return buffer.getvalue()
